// `useStream` of @langchain/react: the event streaming protocol, over SSE or a WebSocket (?transport=).
import { useStream } from "@langchain/react";

import { asked, Page, show } from "./page.jsx";

function Chat() {
  const stream = useStream({
    apiUrl: asked.get("api"),
    assistantId: asked.get("assistant"),
    threadId: asked.get("thread") ?? undefined,
    transport: asked.get("transport") ?? "sse",
  });
  window.waystation = stream;
  return (
    <Page
      stream={stream}
      onSend={(text) => void stream.submit({ messages: [{ type: "human", content: text }] })}
      onStop={() => void stream.stop()}
      onAnswer={(question, answer) => void stream.respond(answer, { interruptId: question.id })}
      extra={
        <>
          <p id="subgraphs">{[...stream.subgraphs.values()].map((one) => `${one.nodeName ?? one.namespace.join("/")}:${one.status}`).join(" ")}</p>
          <p id="tools">{stream.toolCalls.map((call) => `${call.name}=${JSON.stringify(call.output ?? null)}`).join(" ")}</p>
        </>
      }
    />
  );
}

show(Chat);
