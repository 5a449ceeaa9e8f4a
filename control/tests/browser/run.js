// Every browser test, in one process, so that they share one Chromium and one server. Each file also runs alone:
// `node --test rooms.test.js`. scripts/test builds the server and installs what is needed, then starts this.

await import('./relay.test.js');
await import('./rpc.test.js');
await import('./rooms.test.js');
await import('./channels.test.js');
await import('./speakers.test.js');
await import('./layers.test.js');
await import('./codecs.test.js');
await import('./renegotiation.test.js');
await import('./loss.test.js');
await import('./links.test.js');
