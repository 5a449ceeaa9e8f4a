// The relay itself, without a browser: what it must do for the tests that trust it.

import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { test } from 'node:test';
import { Relay } from './lib/relay.js';
import { freePorts } from './lib/ports.js';

/** Sends `count` numbered packets through a relay to an echo and gives back the numbers that came back. */
async function echoed({ count, loss, seed }) {
  const [port] = await freePorts(1);
  const echo = dgram.createSocket('udp4');
  echo.on('message', (packet, from) => echo.send(packet, from.port, from.address));
  await new Promise((resolve) => echo.bind(port, '127.0.0.1', resolve));
  const relay = await Relay.start({ address: '127.0.0.9', target: '127.0.0.1', ports: [port], seed });
  relay.loss = loss;
  const client = dgram.createSocket('udp4');
  const back = [];
  client.on('message', (packet) => back.push(packet.readUInt32BE()));
  for (let number = 0; number < count; number += 1) {
    const packet = Buffer.alloc(100);
    packet.writeUInt32BE(number);
    client.send(packet, port, '127.0.0.9');
    if (number % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await new Promise((resolve) => setTimeout(resolve, 200));
  client.close();
  echo.close();
  relay.close();
  return back;
}

test('the relay hands everything on when it is to lose nothing', async () => {
  const back = await echoed({ count: 500, loss: { up: 0, down: 0 }, seed: 1 });
  assert.equal(back.length, 500);
});

test('the relay loses the asked part, and the same packets for the same seed', async () => {
  const first = await echoed({ count: 2000, loss: { up: 0.2, down: 0 }, seed: 7 });
  const again = await echoed({ count: 2000, loss: { up: 0.2, down: 0 }, seed: 7 });
  const other = await echoed({ count: 2000, loss: { up: 0.2, down: 0 }, seed: 8 });
  assert.ok(first.length > 1500 && first.length < 1700, `${first.length} of 2000 came back at 20 % loss`);
  assert.deepEqual(again, first);
  assert.notDeepEqual(other, first);
});

test('nothing passes in a blackout', async () => {
  assert.deepEqual(await echoed({ count: 100, loss: { up: 1, down: 1 }, seed: 1 }), []);
});
