// What each method of `client.runs`, `client.crons` and `client.store` does.

import assert from "node:assert/strict";
import { BRIEF, DONE, LONG, MADE, TAG, collect, ids, isUuid, running, stepped, thread, until } from "./surface_parts.mjs";

const NEVER = { schedule: "0 0 1 1 *", input: { n: 0 } };

export const runs = {
  async "runs.stream"(client) {
    let created;
    const stream = client.runs.stream(await thread(client), "steps", {
      input: { n: 0 },
      streamMode: ["values", "updates", "custom"],
      onRunCreated: (run) => (created = run),
    });
    const parts = await collect(stream);
    const of = (event) => parts.filter((part) => part.event === event).map((part) => part.data);
    assert.equal(of("metadata")[0].run_id, created.run_id);
    assert.deepEqual([of("values").at(-1), of("custom")], [DONE, [{ hello: "from a" }]]);
    assert.deepEqual(of("updates").map((update) => Object.keys(update)), [["a"], ["b"]]);
  },
  async "runs.create"(client) {
    const threadId = await thread(client);
    const run = await client.runs.create(threadId, "steps", { input: { n: 0 }, ...MADE });
    assert.ok(isUuid(run.run_id));
    assert.deepEqual([run.thread_id, run.status, run.metadata.made], [threadId, "pending", TAG]);
    assert.deepEqual(await client.runs.join(threadId, run.run_id), DONE);
    assert.equal((await client.runs.create(null, "steps", { input: { n: 0 } })).status, "pending");
  },
  async "runs.createBatch"(client) {
    const made = await client.runs.createBatch([1, 2].map((n) => ({ assistantId: "steps", input: { n } })));
    assert.equal(new Set(made.map((run) => run.run_id)).size, 2);
    assert.deepEqual(made.map((run) => run.kwargs.input), [{ n: 1 }, { n: 2 }]);
  },
  async "runs.wait"(client) {
    const threadId = await thread(client);
    assert.deepEqual(await client.runs.wait(threadId, "steps", { input: { n: 0 } }), DONE);
    assert.deepEqual(await client.runs.wait(null, "steps", { input: { n: 0 } }), DONE);
    await assert.rejects(client.runs.wait(threadId, "fail", { input: { n: 0 } }), /boom went the node/);
  },
  async "runs.list"(client, sdk) {
    const threadId = await stepped(client);
    await client.runs.wait(threadId, "steps", { input: { n: 0 } });
    const found = await client.runs.list(threadId, { status: "success" });
    assert.deepEqual(found.map((run) => run.thread_id), [threadId, threadId]);
    const [second, ...more] = await client.runs.list(threadId, { limit: 1, offset: 1 });
    assert.deepEqual([second.run_id, more], [found[1].run_id, []]);
    const selected = client.runs.list(threadId, { limit: 1, select: ["run_id"] });
    // 2.0.0 sends the list as JSON instead of repeating the parameter, which the platform refuses, too.
    if (sdk.ThreadStream) assert.deepEqual(await selected, [{ run_id: found[0].run_id }]);
    else await assert.rejects(selected, /422/);
    assert.deepEqual(await client.runs.list(threadId, { status: "error" }), []);
  },
  async "runs.get"(client) {
    const threadId = await stepped(client);
    const [run] = await client.runs.list(threadId);
    assert.equal((await client.runs.get(threadId, run.run_id)).status, "success");
    await assert.rejects(client.runs.get(threadId, crypto.randomUUID()), /404/);
  },
  async "runs.cancel"(client) {
    const threadId = await thread(client);
    const runId = await running(client, threadId);
    await client.runs.cancel(threadId, runId, true);
    assert.equal((await client.runs.get(threadId, runId)).status, "interrupted");
    const undone = await running(client, threadId);
    await client.runs.cancel(threadId, undone, true, "rollback");
    await assert.rejects(client.runs.get(threadId, undone), /404/);
  },
  async "runs.join"(client) {
    const threadId = await thread(client);
    const run = await client.runs.create(threadId, "slow", BRIEF);
    assert.deepEqual((await client.runs.join(threadId, run.run_id)).ticks, [0, 1, 2, 3]);
  },
  async "runs.joinStream"(client) {
    const threadId = await thread(client);
    const modes = { streamMode: ["custom"], streamResumable: true };
    const run = await client.runs.create(threadId, "slow", { ...BRIEF, ...modes });
    const join = (lastEventId) => client.runs.joinStream(threadId, run.run_id, { lastEventId });
    const all = (await collect(join("-1"))).filter((part) => part.event === "custom");
    assert.deepEqual(all.map((part) => part.data.tick), [0, 1, 2, 3]);
    const rest = (await collect(join(all[1].id))).filter((part) => part.event === "custom");
    assert.deepEqual(rest, all.slice(2));
  },
  async "runs.delete"(client) {
    const threadId = await stepped(client);
    const [run] = await client.runs.list(threadId);
    await client.runs.delete(threadId, run.run_id);
    assert.deepEqual(await client.runs.list(threadId), []);
  },
};

export const crons = {
  async "crons.createForThread"(client) {
    const threadId = await thread(client);
    const cron = await client.crons.createForThread(threadId, "steps", { ...NEVER, ...MADE });
    assert.deepEqual([cron.thread_id, cron.schedule, cron.payload.input], [threadId, "0 0 1 1 *", { n: 0 }]);
    assert.match(cron.next_run_date, /^\d{4}-01-01T00:00:00/);
    await client.crons.delete(cron.cron_id);
  },
  async "crons.create"(client) {
    const cron = await client.crons.create("steps", { ...NEVER, ...MADE, enabled: false });
    assert.deepEqual([cron.thread_id, cron.enabled, cron.metadata.made], [null, false, TAG]);
    await client.crons.delete(cron.cron_id);
  },
  async "crons.update"(client) {
    const cron = await client.crons.create("steps", NEVER);
    const changed = await client.crons.update(cron.cron_id, { schedule: "0 0 2 1 *", enabled: false });
    assert.deepEqual([changed.cron_id, changed.schedule, changed.enabled], [cron.cron_id, "0 0 2 1 *", false]);
    await client.crons.delete(cron.cron_id);
  },
  async "crons.delete"(client) {
    const cron = await client.crons.create("steps", NEVER);
    await client.crons.delete(cron.cron_id);
    await assert.rejects(client.crons.update(cron.cron_id, { enabled: false }), /404/);
  },
  async "crons.search"(client) {
    const threadId = await thread(client);
    const made = [];
    for (const enabled of [true, false]) {
      made.push(await client.crons.createForThread(threadId, "steps", { ...NEVER, enabled }));
    }
    const found = await client.crons.search({ threadId, sortBy: "created_at", sortOrder: "asc" });
    assert.deepEqual(found.map((cron) => cron.cron_id), made.map((cron) => cron.cron_id));
    assert.deepEqual(ids(await client.crons.search({ threadId, enabled: false }), "cron_id"), [made[1].cron_id]);
    for (const cron of made) await client.crons.delete(cron.cron_id);
  },
  async "crons.count"(client) {
    const threadId = await thread(client);
    assert.equal(await client.crons.count({ threadId }), 0);
    const cron = await client.crons.createForThread(threadId, "steps", NEVER);
    assert.equal(await client.crons.count({ threadId }), 1);
    await client.crons.delete(cron.cron_id);
  },
};

export const store = {
  async "store.putItem"(client) {
    const space = [TAG, "put"];
    await client.store.putItem(space, "k", { a: 1 }, { index: false, ttl: 60 });
    await client.store.putItem(space, "k", { a: 2 });
    assert.deepEqual((await client.store.getItem(space, "k")).value, { a: 2 });
  },
  async "store.getItem"(client) {
    const space = [TAG, "get"];
    await client.store.putItem(space, "k", { a: 1 });
    const item = await client.store.getItem(space, "k", { refreshTtl: true });
    assert.deepEqual([item.namespace, item.key, item.value], [space, "k", { a: 1 }]);
    assert.ok(Date.parse(item.createdAt) <= Date.parse(item.updatedAt));
    assert.equal(await client.store.getItem(space, "other"), null);
  },
  async "store.deleteItem"(client) {
    const space = [TAG, "delete"];
    await client.store.putItem(space, "k", { a: 1 });
    await client.store.deleteItem(space, "k");
    assert.equal(await client.store.getItem(space, "k"), null);
  },
  async "store.searchItems"(client) {
    const space = [TAG, "search"];
    for (const [key, text] of [["k1", "aaaa"], ["k2", "hhhh"]]) await client.store.putItem(space, key, { text });
    const filtered = await client.store.searchItems(space, { filter: { text: "hhhh" } });
    assert.deepEqual(ids(filtered.items, "key"), ["k2"]);
    const near = await client.store.searchItems(space, { query: "aaa", limit: 1 });
    assert.deepEqual(ids(near.items, "key"), ["k1"]);
    assert.ok(near.items[0].score > 0.9);
  },
  async "store.listNamespaces"(client) {
    for (const last of ["x", "y"]) await client.store.putItem([TAG, "list", last], "k", { a: 1 });
    const found = await client.store.listNamespaces({ prefix: [TAG, "list"], suffix: ["y"] });
    assert.deepEqual(found.namespaces, [[TAG, "list", "y"]]);
    const upper = await client.store.listNamespaces({ prefix: [TAG, "list"], maxDepth: 2 });
    assert.deepEqual(upper.namespaces, [[TAG, "list"]]);
  },
};

// What came with the version that has thread streams.
export const sinceThreadStreams = {
  async "runs.cancelMany"(client) {
    const threadId = await thread(client);
    const runId = await running(client, threadId);
    const waiting = await client.runs.create(threadId, "slow", { ...LONG, multitaskStrategy: "enqueue" });
    const runIds = [runId, waiting.run_id];
    await client.runs.cancelMany({ threadId, runIds, action: "interrupt" });
    await until(async () => {
      const found = await Promise.all(runIds.map((id) => client.runs.get(threadId, id)));
      return found.every((run) => run.status === "interrupted");
    }, "both runs are interrupted");
  },
};
