// Every browser test, in one process, so that they share one Chromium and one server. Each file also runs alone:
// `node --test rooms.test.js`. run.js starts this.

import './relay.test.js';
import './rpc.test.js';
import './rooms.test.js';
import './channels.test.js';
import './speakers.test.js';
import './layers.test.js';
import './codecs.test.js';
import './renegotiation.test.js';
import './loss.test.js';
import './links.test.js';
import './turn.test.js';
import './tcp.test.js';
import './one_port.test.js';
import './demo/alone.test.js';
import './demo/room.test.js';
import './demo/firefox.test.js';
