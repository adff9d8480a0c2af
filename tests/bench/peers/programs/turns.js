// What all peers in Node share: how they start, how they take their turns, and how they end. The twin of turns.py.

const { readFileSync } = require("node:fs");
const { createRequire } = require("node:module");
const { join } = require("node:path");
const { createInterface } = require("node:readline");
const { setTimeout: sleep } = require("node:timers/promises");

const HOST = "127.0.0.1";
// Thousands of clients connect at once, and the kernel refuses whom the queue does not hold.
const BACKLOG = 4096;
const STAMP_BYTES = 20;
// The packages are not beside these programs but where the environment of the peers is built.
const ENVIRONMENT = join(__dirname, "../../../../build/peers");
const installed = createRequire(join(ENVIRONMENT, "package.json"));

const now = () => process.hrtime.bigint();

function versionOf(name) {
  return JSON.parse(readFileSync(join(ENVIRONMENT, "node_modules", name, "package.json"), "utf8")).version;
}

function stamped(bodyBytes) {
  return String(now()).padStart(STAMP_BYTES, "0").padEnd(bodyBytes, "x");
}

// Broadcasts `joined` texts in each turn, the first one interval from now; a late turn starts at once, but gives way first.
async function takeTurns(broadcast, turns, joined, bodyBytes, everyMicroseconds) {
  if (bodyBytes < STAMP_BYTES) {
    throw new Error(`a text begins with a stamp of ${STAMP_BYTES} bytes and cannot have ${bodyBytes}`);
  }
  let dueAt = now();
  for (let turn = 0; turn < turns; turn += 1) {
    dueAt += BigInt(everyMicroseconds) * 1000n;
    const early = Number(dueAt - now()) / 1e6;
    await (early > 0 ? sleep(Math.ceil(early)) : new Promise(setImmediate));
    for (let message = 0; message < joined; message += 1) {
      broadcast(stamped(bodyBytes));
    }
  }
}

// Says that the peer accepts connections, and lets it broadcast whenever stdin says so.
async function run(name, broadcast) {
  console.log(`ready ${name} ${versionOf(name)}`);
  for await (const order of createInterface({ input: process.stdin })) {
    await takeTurns(broadcast, ...order.split(" ").map(Number));
    console.log("done");
  }
  // The clients are gone or about to go. Saying goodbye to thousands of them one by one would only take time.
  process.exit(0);
}

module.exports = { BACKLOG, ENVIRONMENT, HOST, installed, run, port: Number(process.argv.at(-1)) };
