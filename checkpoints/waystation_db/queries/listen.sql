-- name: listen
-- Makes the session receive what is notified on a channel. A channel is an identifier and cannot be a parameter.
listen {channel};
