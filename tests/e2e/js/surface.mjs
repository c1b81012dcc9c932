// Calls every public method of the official client, each checked for what it does; one line of JSON per method.
//
//   node --experimental-websocket surface.mjs @langchain/langgraph-sdk http://127.0.0.1:2024
//   node --experimental-websocket surface.mjs langgraph-sdk-1 http://127.0.0.1:2024
//   node --experimental-websocket surface.mjs langgraph-sdk-1 http://127.0.0.1:2024 store.   what begins so
//
// The methods are not listed here: they are what the client turns out to have. One without a check in
// `surface_threads.mjs`, `surface_runs.mjs` or `surface_stream.mjs`, and a check without a method, end it with 1.

import * as runs from "./surface_runs.mjs";
import { namesOfThreadStream, streams } from "./surface_stream.mjs";
import * as threads from "./surface_threads.mjs";

const [packageName, apiUrl, only = ""] = process.argv.slice(2);
const sdk = await import(packageName);
const client = new sdk.Client({ apiUrl, apiKey: null, callerOptions: { maxRetries: 0 } });
const transports = sdk.ThreadStream ? ["sse", "websocket"] : [];

// What is reachable and yet not for users, and why.
const internal = {
  "*.prepareFetchOptions": "protected in the type declarations: what every resource makes its requests with",
  "*.fetch": "protected in the type declarations: what every resource makes its requests with",
  "*.streamWithRetry": "protected in the type declarations: what the streaming methods are made of",
  "~ui.getComponent": "marked as internal: loads components for a React UI, which this server does not build",
};

function methodsOf(object) {
  const names = new Set();
  for (let at = object; at && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const [name, { value, get }] of Object.entries(Object.getOwnPropertyDescriptors(at))) {
      if (name !== "constructor" && (get || typeof value === "function")) names.add(name);
    }
  }
  return [...names];
}

// A client of the client is an object of a class; its settings are strings.
function namesOfClient() {
  const direct = methodsOf(client);
  const nested = Object.keys(client).filter((key) => typeof client[key] === "object");
  return [...direct, ...nested.flatMap((key) => methodsOf(client[key]).map((name) => `${key}.${name}`))];
}

const usedReasons = new Set();
function isPublic(name) {
  const reason = [name, `*.${name.split(".").at(-1)}`].find((key) => key in internal);
  if (reason) usedReasons.add(reason);
  return !reason;
}

const table = { ...threads.assistants, ...threads.threads, ...runs.runs, ...runs.crons, ...runs.store };
if (sdk.ThreadStream) Object.assign(table, threads.sinceThreadStreams, runs.sinceThreadStreams);
const publicNames = namesOfClient().filter(isPublic);
for (const transport of transports) {
  publicNames.push(...namesOfThreadStream(client, sdk, transport));
  Object.assign(table, streams(transport));
}

const problems = [
  ...publicNames.filter((name) => !(name in table)).map((name) => `${name}: a method without a check`),
  ...Object.keys(table).filter((name) => !publicNames.includes(name)).map((name) => `${name}: no such method`),
  ...Object.keys(internal).filter((name) => !usedReasons.has(name)).map((name) => `${name}: nothing to leave out`),
];
for (const problem of problems) console.error(problem);

let failed = problems.length;
for (const method of publicNames.filter((name) => name in table && name.startsWith(only))) {
  const begun = Date.now();
  let timer;
  try {
    const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("not within 80 s")), 80_000)));
    await Promise.race([table[method](client, sdk), late]);
    console.log(JSON.stringify({ method, ok: true, ms: Date.now() - begun }));
  } catch (error) {
    failed += 1;
    console.log(JSON.stringify({ method, ok: false, ms: Date.now() - begun }));
    console.error(`${method}: ${error.stack}`);
  } finally {
    clearTimeout(timer);
  }
}
process.exit(failed ? 1 : 0); // idle connections of the client would keep it for a while
