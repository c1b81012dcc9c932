// What both pages share: a transcript that a test (and a person) can read, and the buttons that drive a run.
import { createRoot } from "react-dom/client";
import { useEffect, useState } from "react";

export const asked = new URLSearchParams(location.search);

const textOf = (content) =>
  typeof content === "string" ? content : content.map((block) => block.text ?? "").join("");

const typeOf = (message) => (typeof message.getType === "function" ? message.getType() : message.type);

export function Page({ stream, onSend, onStop, onAnswer, onEdit, extra }) {
  const [draft, setDraft] = useState("");
  useEffect(() => {
    // As chat pages do, so that a reload comes back to the conversation.
    if (!stream.threadId || asked.get("thread")) return;
    asked.set("thread", stream.threadId);
    history.replaceState(null, "", `?${asked}`);
  }, [stream.threadId]);
  const questions = stream.interrupts ?? (stream.interrupt ? [stream.interrupt] : []);
  return (
    <main>
      <p>
        thread <code id="thread">{stream.threadId ?? asked.get("thread") ?? ""}</code>, <b id="state">{stream.isLoading ? "working" : "idle"}</b>
      </p>
      <ol id="messages">
        {(stream.messages ?? []).map((message, at) => (
          <li key={message.id ?? at} className={typeOf(message)} data-id={message.id}>
            <b>{typeOf(message)}</b> <span>{textOf(message.content)}</span>
            {(message.tool_calls ?? []).map((call) => (
              <code key={call.id} className="call">{call.name}({JSON.stringify(call.args)})</code>
            ))}
            {onEdit && typeOf(message) === "human" ? (
              <button className="edit" onClick={() => onEdit(message, at, draft)}>ask the draft instead</button>
            ) : null}
          </li>
        ))}
      </ol>
      {questions.map((question) => (
        <section key={question.id} className="question" data-id={question.id}>
          <pre>{JSON.stringify(question.value)}</pre>
          <button className="approve" onClick={() => onAnswer(question, { decisions: [{ type: "approve" }] })}>approve</button>
          <button className="reject" onClick={() => onAnswer(question, { decisions: [{ type: "reject", message: "Not today." }] })}>reject</button>
        </section>
      ))}
      {stream.error ? <p id="error">{String(stream.error.message ?? stream.error)}</p> : null}
      {extra}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          onSend(draft);
          setDraft("");
        }}
      >
        <input id="draft" value={draft} onChange={(event) => setDraft(event.target.value)} />
        <button id="send">send</button>
        <button id="stop" type="button" onClick={onStop}>stop</button>
      </form>
    </main>
  );
}

export const show = (App) => createRoot(document.body.appendChild(document.createElement("div"))).render(<App />);
