// A reporter for node's tests: which passed and which failed, one a line.

export default async function* verdicts(events) {
  for await (const { type, data } of events) {
    if (type === 'test:fail') yield `failed ${data.name}\n`;
    if (type === 'test:pass' && !data.skip) yield `passed ${data.name}\n`;
  }
}
