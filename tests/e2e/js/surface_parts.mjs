// What the checks of the client's methods have in common.

import assert from "node:assert/strict";

export const TAG = `js-${process.pid}-${Date.now()}`;
export const MADE = { metadata: { made: TAG } };
export const DONE = { log: ["a", "b"], n: 2 };
export const LONG = { input: { n: 400, delay: 0.05 } };
export const BRIEF = { input: { n: 4, delay: 0.03 } };
export const say = (content) => ({ messages: [{ role: "user", content }] });
export const isUuid = (text) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text);
export const ids = (found, key) => found.map((one) => one[key]).sort();

// Metadata of a check's own, so that searches and counts see nothing else.
export const own = (name) => ({ metadata: { made: `${TAG}-${name}` } });

export async function collect(stream, isLast = () => false) {
  const parts = [];
  for await (const part of stream) {
    parts.push(part);
    if (isLast(part)) break;
  }
  return parts;
}

export async function until(check, what) {
  for (const deadline = Date.now() + 60_000; !(await check()); ) {
    assert.ok(Date.now() < deadline, `not so within 60 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export const thread = async (client, more = {}) => (await client.threads.create({ ...MADE, ...more })).thread_id;

// A thread on which `steps` has run.
export async function stepped(client) {
  const threadId = await thread(client);
  await client.runs.wait(threadId, "steps", { input: { n: 0 } });
  return threadId;
}

// The id of a run that runs for long.
export async function running(client, threadId) {
  const run = await client.runs.create(threadId, "slow", LONG);
  await until(async () => (await client.runs.get(threadId, run.run_id)).status === "running", "run is running");
  return run.run_id;
}
