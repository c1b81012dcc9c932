// Drives a server with the official client and says what came back, one line of JSON per scenario.
//
//   node sdk.mjs http://127.0.0.1:2024             all scenarios
//   node sdk.mjs http://127.0.0.1:2024 interrupt   one of them
//
// A scenario throws when an answer is not what it must be; the process then ends with 1.

import assert from "node:assert/strict";
import { Client } from "@langchain/langgraph-sdk";

const [apiUrl, only] = process.argv.slice(2);
const client = new Client({ apiUrl, apiKey: null });

const LONG = { n: 400, delay: 0.05 };
const question = (text) => ({ messages: [{ role: "user", content: text }] });

async function collect(stream, limit = Infinity) {
  const parts = [];
  for await (const part of stream) {
    parts.push(part);
    if (parts.length >= limit) break;
  }
  return parts;
}

async function eventually(check, what) {
  const deadline = Date.now() + 60_000;
  while (!(await check())) {
    assert.ok(Date.now() < deadline, `not so within 60 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

async function newThread() {
  return (await client.threads.create()).thread_id;
}

async function becomes(threadId, runId, status) {
  await eventually(async () => (await client.runs.get(threadId, runId)).status === status, `run is ${status}`);
}

const scenarios = {
  async threads() {
    const thread = await client.threads.create({ metadata: { from: "js" } });
    await client.threads.update(thread.thread_id, { metadata: { more: 1 } });
    const read = await client.threads.get(thread.thread_id);
    assert.deepEqual(read.metadata, { from: "js", more: 1 });
    const found = await client.threads.search({ ids: [thread.thread_id] });
    assert.equal(found.length, 1);
    await client.threads.delete(thread.thread_id);
    await assert.rejects(client.threads.get(thread.thread_id), /404/);
    return { status: read.status, metadata: read.metadata };
  },

  async assistants() {
    const [assistant] = await client.assistants.search({ graphId: "steps", limit: 1 });
    const graph = await client.assistants.getGraph(assistant.assistant_id);
    const schemas = await client.assistants.getSchemas(assistant.assistant_id);
    assert.deepEqual(graph.nodes.map((node) => node.id), ["__start__", "a", "b", "__end__"]);
    assert.equal(schemas.graph_id, "steps");
    return { graph_id: assistant.graph_id, nodes: graph.nodes.length };
  },

  async streamMessages() {
    const threadId = await newThread();
    let created;
    const parts = await collect(
      client.runs.stream(threadId, "chat", {
        input: question("tell me more"),
        streamMode: "messages-tuple",
        onRunCreated: (run) => (created = run),
      }),
    );
    const chunks = parts.filter((part) => part.event === "messages");
    const text = chunks.map((part) => part.data[0].content).join("");
    assert.equal(parts[0].event, "metadata");
    assert.equal(parts[0].data.run_id, created.run_id);
    assert.equal(text, "You said: tell me more");
    assert.ok(chunks.length > 3);
    return { chunks: chunks.length, text };
  },

  async streamValuesAndUpdates() {
    const threadId = await newThread();
    const parts = await collect(
      client.runs.stream(threadId, "steps", { input: { n: 0 }, streamMode: ["values", "updates", "custom"] }),
    );
    const of = (event) => parts.filter((part) => part.event === event).map((part) => part.data);
    assert.deepEqual(of("values").at(-1), { log: ["a", "b"], n: 2 });
    assert.deepEqual(of("updates"), [{ a: { log: ["a"], n: 1 } }, { b: { log: ["b"], n: 2 } }]);
    assert.deepEqual(of("custom"), [{ hello: "from a" }]);
    return { events: parts.map((part) => part.event) };
  },

  async subgraphs() {
    const threadId = await newThread();
    const parts = await collect(
      client.runs.stream(threadId, "nested", {
        input: { ...question("hi"), n: 0 },
        streamMode: "updates",
        streamSubgraphs: true,
      }),
    );
    const inner = parts.filter((part) => part.event.startsWith("updates|child:"));
    assert.ok(inner.length > 0);
    return { inner: inner.length };
  },

  async interruptAndResume() {
    const threadId = await newThread();
    const asked = await client.runs.wait(threadId, "hitl", { input: { n: 1 } });
    assert.deepEqual(asked.__interrupt__[0].value, { question: "go on?" });
    assert.equal((await client.threads.get(threadId)).status, "interrupted");
    const state = await client.threads.getState(threadId);
    assert.deepEqual(state.next, ["ask"]);
    const parts = await collect(
      client.runs.stream(threadId, "hitl", { command: { resume: "yes" }, streamMode: "values" }),
    );
    assert.deepEqual(parts.at(-1).data, { log: ["answer=yes", "b"], n: 2 });
    return { asked: asked.__interrupt__[0].value, answered: parts.at(-1).data };
  },

  async historyAndFork() {
    const threadId = await newThread();
    await client.runs.wait(threadId, "steps", { input: { n: 0 } });
    const history = await client.threads.getHistory(threadId);
    assert.deepEqual(history.map((state) => state.next), [[], ["b"], ["a"], ["__start__"]]);
    const again = await client.runs.wait(threadId, "steps", { input: null, checkpoint: history[1].checkpoint });
    assert.deepEqual(again.log, ["a", "b"]);
    await client.threads.updateState(threadId, { values: { log: ["edited"] }, checkpoint: history[1].checkpoint });
    const forked = await client.runs.wait(threadId, "steps", { input: null });
    assert.deepEqual(forked.log, ["a", "edited", "b"]);
    const copied = await client.threads.copy(threadId);
    assert.deepEqual((await client.threads.getState(copied.thread_id)).values.log, forked.log);
    return { checkpoints: history.length, forked: forked.log };
  },

  async cancel() {
    const threadId = await newThread();
    const run = await client.runs.create(threadId, "slow", { input: LONG });
    await becomes(threadId, run.run_id, "running");
    const before = Date.now();
    await client.runs.cancel(threadId, run.run_id, true);
    const ms = Date.now() - before;
    assert.equal((await client.runs.get(threadId, run.run_id)).status, "interrupted");
    const undone = await client.runs.create(threadId, "slow", { input: LONG });
    await becomes(threadId, undone.run_id, "running");
    await client.runs.cancel(threadId, undone.run_id, true, "rollback");
    await assert.rejects(client.runs.get(threadId, undone.run_id), /404/);
    return { cancelled_within_ms: ms };
  },

  async leaving() {
    const threadId = await newThread();
    const abort = new AbortController();
    let run;
    const stream = client.runs.stream(threadId, "slow", {
      input: LONG,
      streamMode: "custom",
      onDisconnect: "cancel",
      onRunCreated: (created) => (run = created),
      signal: abort.signal,
    });
    await collect(stream, 3);
    abort.abort();
    await becomes(threadId, run.run_id, "interrupted");
    return { status: "interrupted" };
  },

  async join() {
    const threadId = await newThread();
    const run = await client.runs.create(threadId, "slow", { input: { n: 4, delay: 0.05 } });
    const values = await client.runs.join(threadId, run.run_id);
    assert.deepEqual(values.ticks, [0, 1, 2, 3]);
    return { ticks: values.ticks };
  },

  async reconnect() {
    const threadId = await newThread();
    const run = await client.runs.create(threadId, "slow", {
      input: { n: 8, delay: 0.05 },
      streamMode: ["custom"],
      streamResumable: true,
    });
    const first = await collect(client.runs.joinStream(threadId, run.run_id, { lastEventId: "-1" }), 4);
    const rest = await collect(client.runs.joinStream(threadId, run.run_id, { lastEventId: first.at(-1).id }));
    const ticks = [...first, ...rest].filter((part) => part.event === "custom").map((part) => part.data.tick);
    assert.deepEqual(ticks, [0, 1, 2, 3, 4, 5, 6, 7]);
    return { before: first.map((part) => part.id), after: rest.length, ticks };
  },

  async stateless() {
    const values = await client.runs.wait(null, "steps", { input: { n: 0 } });
    assert.deepEqual(values, { log: ["a", "b"], n: 2 });
    const parts = await collect(client.runs.stream(null, "steps", { input: { n: 0 }, streamMode: "updates" }));
    assert.deepEqual(parts.map((part) => part.event), ["metadata", "updates", "updates"]);
    const runs = await client.runs.createBatch([1, 2].map(() => ({ assistantId: "steps", input: { n: 0 } })));
    assert.equal(runs.length, 2);
    return { values, batch: runs.length };
  },

  async multitask() {
    const threadId = await newThread();
    const first = await client.runs.create(threadId, "slow", { input: LONG });
    await becomes(threadId, first.run_id, "running");
    const reject = client.runs.create(threadId, "steps", { input: { n: 0 }, multitaskStrategy: "reject" });
    await assert.rejects(reject, /409/);
    const values = await client.runs.wait(threadId, "steps", { input: { n: 0 }, multitaskStrategy: "interrupt" });
    assert.deepEqual(values.log, ["a", "b"]);
    assert.equal((await client.runs.get(threadId, first.run_id)).status, "interrupted");
    return { log: values.log };
  },

  async failure() {
    const threadId = await newThread();
    await assert.rejects(client.runs.wait(threadId, "fail", { input: { n: 0 } }), /boom went the node/);
    const told = await client.runs.wait(threadId, "fail", { input: { n: 0 }, raiseError: false });
    assert.equal(told.__error__.error, "ValueError");
    const parts = await collect(client.runs.stream(threadId, "fail", { input: { n: 0 } }));
    assert.equal(parts.at(-1).event, "error");
    return { error: parts.at(-1).data };
  },

  async versions() {
    const made = await client.assistants.create({ graphId: "steps", name: "js", metadata: { from: "js" } });
    await client.assistants.update(made.assistant_id, { name: "js 2" });
    const versions = await client.assistants.getVersions(made.assistant_id);
    assert.deepEqual(versions.map((one) => one.version), [2, 1]);
    const back = await client.assistants.setLatest(made.assistant_id, 1);
    assert.equal(back.name, "js");
    await client.assistants.delete(made.assistant_id);
    await assert.rejects(client.assistants.get(made.assistant_id), /404/);
    return { versions: versions.length };
  },

  async crons() {
    const threadId = await newThread();
    const input = { input: { n: 0 }, schedule: "0 0 1 1 *", metadata: { from: "js" } };
    const made = await client.crons.create("steps", input);
    const bound = await client.crons.createForThread(threadId, "steps", input);
    const found = await client.crons.search({ threadId });
    assert.deepEqual(found.map((cron) => cron.cron_id), [bound.cron_id]);
    for (const cron of [made, bound]) await client.crons.delete(cron.cron_id);
    assert.deepEqual(await client.crons.search({ threadId }), []);
    return { next: bound.next_run_date };
  },

  async store() {
    const space = ["js", `${process.pid}-${Date.now()}`];
    await client.store.putItem(space, "k", { a: 1 });
    assert.deepEqual((await client.store.getItem(space, "k")).value, { a: 1 });
    const { items } = await client.store.searchItems(space, { filter: { a: 1 } });
    assert.equal(items.length, 1);
    const { namespaces } = await client.store.listNamespaces({ prefix: space });
    assert.deepEqual(namespaces, [space]);
    await client.store.deleteItem(space, "k");
    assert.equal(await client.store.getItem(space, "k"), null);
    return { items: items.length };
  },
};

for (const [name, scenario] of Object.entries(scenarios)) {
  if (only && only !== name) continue;
  const result = await scenario();
  console.log(JSON.stringify({ scenario: name, ...result }));
}
process.exit(0); // idle connections of the client would keep it for a while
