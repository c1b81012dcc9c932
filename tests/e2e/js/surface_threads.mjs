// What each method of `client.assistants` and `client.threads` does.

import assert from "node:assert/strict";
import { BRIEF, DONE, MADE, TAG, collect, ids, own, stepped, thread } from "./surface_parts.mjs";

const assistant = (client, more = {}) => client.assistants.create({ graphId: "steps", ...MADE, ...more });

export const assistants = {
  async "assistants.get"(client) {
    const made = await assistant(client, { name: "one" });
    assert.deepEqual(await client.assistants.get(made.assistant_id), made);
    await assert.rejects(client.assistants.get(crypto.randomUUID()), /404/);
  },
  async "assistants.getGraph"(client) {
    const { nodes, edges } = await client.assistants.getGraph("nested", { xray: true });
    assert.ok(nodes.some((node) => node.id === "child:grandchild:inner_model"));
    assert.ok(edges.some((edge) => edge.source === "__start__" && edge.target === "before"));
  },
  async "assistants.getSchemas"(client) {
    const { assistant_id } = await assistant(client);
    const schemas = await client.assistants.getSchemas(assistant_id);
    assert.equal(schemas.graph_id, "steps");
    assert.deepEqual(Object.keys(schemas.input_schema.properties).sort(), ["log", "n"]);
  },
  async "assistants.getSubgraphs"(client) {
    const { assistant_id } = await assistant(client, { graphId: "nested" });
    const names = async (options) => Object.keys(await client.assistants.getSubgraphs(assistant_id, options)).sort();
    assert.deepEqual(await names(), ["child"]);
    assert.deepEqual(await names({ recurse: true }), ["child", "child|grandchild"]);
    assert.deepEqual(await names({ namespace: "child" }), ["child"]);
    assert.deepEqual(await names({ namespace: "nobody" }), []);
  },
  async "assistants.create"(client) {
    const assistantId = crypto.randomUUID();
    const given = { assistantId, name: "new", description: "of the test", config: { tags: ["t"] } };
    const made = await assistant(client, given);
    assert.deepEqual([made.assistant_id, made.graph_id, made.name, made.version], [assistantId, "steps", "new", 1]);
    assert.deepEqual([made.description, made.config.tags, made.metadata.made], ["of the test", ["t"], TAG]);
    await assert.rejects(assistant(client, given), /409/);
    assert.deepEqual(await assistant(client, { ...given, name: "other", ifExists: "do_nothing" }), made);
  },
  async "assistants.update"(client) {
    const made = await assistant(client, { name: "before" });
    const changed = await client.assistants.update(made.assistant_id, { name: "after", metadata: { more: 1 } });
    assert.deepEqual([changed.name, changed.version, changed.metadata.more], ["after", 2, 1]);
  },
  async "assistants.delete"(client) {
    const made = await assistant(client);
    await client.assistants.delete(made.assistant_id);
    await assert.rejects(client.assistants.get(made.assistant_id), /404/);
  },
  async "assistants.search"(client) {
    const three = await Promise.all(["x", "y", "z"].map((name) => assistant(client, { ...own("search"), name })));
    const query = { ...own("search"), limit: 2, sortBy: "name", sortOrder: "desc" };
    const page = await client.assistants.search({ ...query, includePagination: true });
    assert.deepEqual([page.assistants.map((one) => one.name), page.next], [["z", "y"], "2"]);
    const rest = await client.assistants.search({ ...query, offset: 2, select: ["assistant_id"] });
    assert.deepEqual(rest, [{ assistant_id: three[0].assistant_id }]);
  },
  async "assistants.count"(client) {
    assert.equal(await client.assistants.count(own("count")), 0);
    await Promise.all(["steps", "steps", "chat"].map((graphId) => assistant(client, { ...own("count"), graphId })));
    assert.equal(await client.assistants.count(own("count")), 3);
    assert.equal(await client.assistants.count({ ...own("count"), graphId: "chat" }), 1);
  },
  async "assistants.getVersions"(client) {
    const made = await assistant(client, { name: "v1" });
    await client.assistants.update(made.assistant_id, { name: "v2" });
    const versions = await client.assistants.getVersions(made.assistant_id);
    assert.deepEqual(versions.map((one) => [one.version, one.name]), [[2, "v2"], [1, "v1"]]);
    assert.equal((await client.assistants.getVersions(made.assistant_id, { limit: 1, offset: 1 }))[0].version, 1);
  },
  async "assistants.setLatest"(client) {
    const made = await assistant(client, { name: "v1" });
    await client.assistants.update(made.assistant_id, { name: "v2" });
    assert.equal((await client.assistants.setLatest(made.assistant_id, 1)).name, "v1");
    assert.equal((await client.assistants.get(made.assistant_id)).version, 1);
  },
};

export const threads = {
  async "threads.get"(client) {
    const made = await client.threads.create(MADE);
    const read = await client.threads.get(made.thread_id);
    assert.deepEqual([read.thread_id, read.status, read.metadata], [made.thread_id, "idle", made.metadata]);
    await assert.rejects(client.threads.get(crypto.randomUUID()), /404/);
  },
  async "threads.create"(client) {
    const threadId = crypto.randomUUID();
    const supersteps = [{ updates: [{ values: { log: ["given"], n: 5 }, asNode: "a" }] }];
    const made = await client.threads.create({ threadId, graphId: "steps", supersteps, ttl: 60, ...MADE });
    assert.deepEqual([made.thread_id, made.metadata], [threadId, { made: TAG, graph_id: "steps" }]);
    assert.deepEqual((await client.threads.getState(threadId)).values, { log: ["given"], n: 5 });
    await assert.rejects(client.threads.create({ threadId }), /409/);
    assert.equal((await client.threads.create({ threadId, ifExists: "do_nothing" })).thread_id, threadId);
  },
  async "threads.copy"(client) {
    const threadId = await stepped(client);
    const copied = await client.threads.copy(threadId);
    assert.notEqual(copied.thread_id, threadId);
    assert.deepEqual((await client.threads.getState(copied.thread_id)).values, DONE);
  },
  async "threads.update"(client) {
    const threadId = await thread(client);
    const changed = await client.threads.update(threadId, { metadata: { more: 1 }, ttl: 60 });
    assert.deepEqual(changed.metadata, { made: TAG, more: 1 });
    await client.threads.update(threadId, { metadata: { more: 2 }, returnMinimal: true });
    assert.equal((await client.threads.get(threadId)).metadata.more, 2);
  },
  async "threads.delete"(client) {
    const threadId = await stepped(client);
    await client.threads.delete(threadId);
    await assert.rejects(client.threads.get(threadId), /404/);
  },
  async "threads.search"(client) {
    const made = await Promise.all([1, 2, 3].map(() => thread(client, own("search"))));
    assert.deepEqual(ids(await client.threads.search(own("search")), "thread_id"), [...made].sort());
    const query = { ids: made, status: "idle", sortBy: "thread_id", sortOrder: "asc" };
    const second = await client.threads.search({ ...query, limit: 1, offset: 1, select: ["thread_id"] });
    assert.deepEqual(second, [{ thread_id: [...made].sort()[1] }]);
  },
  async "threads.count"(client) {
    await Promise.all([1, 2].map(() => thread(client, own("count"))));
    assert.equal(await client.threads.count({ ...own("count"), status: "idle" }), 2);
    assert.equal(await client.threads.count({ ...own("count"), status: "busy" }), 0);
  },
  async "threads.getState"(client) {
    const threadId = await stepped(client);
    const state = await client.threads.getState(threadId);
    assert.deepEqual([state.values, state.next], [DONE, []]);
    const parent = await client.threads.getState(threadId, state.parent_checkpoint);
    assert.deepEqual(parent.next, ["b"]);
    const byId = await client.threads.getState(threadId, state.parent_checkpoint.checkpoint_id);
    assert.deepEqual([byId.values, byId.next], [parent.values, parent.next]);
  },
  async "threads.updateState"(client) {
    const threadId = await stepped(client);
    const { checkpoint } = await client.threads.updateState(threadId, { values: { log: ["c"] }, asNode: "a" });
    const state = await client.threads.getState(threadId);
    assert.deepEqual([state.values.log, state.next], [["a", "b", "c"], ["b"]]);
    assert.equal(state.checkpoint.checkpoint_id, checkpoint.checkpoint_id);
  },
  // A leftover of the client: the platform has no such operation either, and answers the same.
  async "threads.patchState"(client) {
    const threadId = await stepped(client);
    await assert.rejects(client.threads.patchState(threadId, { reviewed: true }), /405/);
    assert.equal((await client.threads.getState(threadId)).metadata.reviewed, undefined);
  },
  async "threads.getHistory"(client) {
    const threadId = await stepped(client);
    const states = await client.threads.getHistory(threadId);
    assert.deepEqual(states.map((state) => state.next), [[], ["b"], ["a"], ["__start__"]]);
    const before = { configurable: states[0].checkpoint };
    const [second, ...more] = await client.threads.getHistory(threadId, { limit: 1, before });
    assert.deepEqual([second.checkpoint.checkpoint_id, more], [states[1].checkpoint.checkpoint_id, []]);
  },
  async "threads.joinStream"(client) {
    const threadId = await thread(client);
    const isEnd = (part) => part.event === "values" && part.data.ticks?.length === 4;
    const abort = new AbortController();
    const joined = collect(client.threads.joinStream(threadId, { streamMode: ["run_modes"], signal: abort.signal }), isEnd);
    const run = await client.runs.create(threadId, "slow", { ...BRIEF, streamMode: ["values"] });
    const parts = await joined;
    abort.abort();
    assert.deepEqual(parts.at(-1).data.ticks, [0, 1, 2, 3]);
    await client.runs.join(threadId, run.run_id);
  },
};

// What came with the version that has thread streams.
export const sinceThreadStreams = {
  async "threads.prune"(client) {
    const [gone, kept] = await Promise.all([stepped(client), stepped(client)]);
    assert.equal((await client.threads.prune([gone])).pruned_count, 1);
    await assert.rejects(client.threads.get(gone), /404/);
    assert.equal((await client.threads.prune([kept], { strategy: "keep_latest" })).pruned_count, 1);
    assert.deepEqual((await client.threads.getHistory(kept)).map((state) => state.values), [DONE]);
  },
  async "threads.stream"(client) {
    const threadId = await thread(client);
    const stream = client.threads.stream(threadId, { assistantId: "steps" });
    await stream.run.start({ input: { n: 0 } });
    assert.deepEqual([stream.threadId, await stream.output], [threadId, DONE]);
    await stream.close();
  },
};
