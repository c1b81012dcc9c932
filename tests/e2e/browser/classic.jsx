// `useStream` of @langchain/langgraph-sdk: the runs API with its stream modes, rejoined by run id.
import { useStream } from "@langchain/langgraph-sdk/react";
import { useState } from "react";

import { asked, Page, show } from "./page.jsx";

function Chat() {
  const [threadId, setThreadId] = useState(asked.get("thread"));
  const stream = useStream({
    apiUrl: asked.get("api"),
    assistantId: asked.get("assistant"),
    threadId,
    onThreadId: setThreadId,
    reconnectOnMount: true,
    fetchStateHistory: true,
  });
  window.waystation = stream;
  return (
    <Page
      stream={{ ...stream, messages: stream.messages, interrupt: stream.interrupt, isLoading: stream.isLoading, error: stream.error, threadId }}
      onSend={(text) => void stream.submit({ messages: [{ type: "human", content: text }] }, { streamResumable: true, onDisconnect: "continue" })}
      onStop={() => void stream.stop()}
      onAnswer={(_, answer) => void stream.submit(undefined, { command: { resume: answer } })}
      onEdit={(message, at, text) =>
        void stream.submit(
          { messages: [{ type: "human", content: text }] },
          { checkpoint: stream.getMessagesMetadata(message, at)?.firstSeenState?.parent_checkpoint },
        )
      }
      extra={<p id="branches">{stream.history.length}</p>}
    />
  );
}

show(Chat);
