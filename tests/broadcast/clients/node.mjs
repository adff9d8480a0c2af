// Node's own WebSocket, which is the browser's, through every scenario: node node.mjs THREE_ADDRESSES
// Prints a JSON line for each.

import { play } from "./scenarios.mjs";

await play(process.argv.slice(2), "node", (report) => console.log(JSON.stringify(report)));
