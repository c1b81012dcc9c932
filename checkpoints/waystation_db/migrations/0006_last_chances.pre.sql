-- Runs that wait after a crash are few: whoever looks for them need not read the whole queue.
create index run_waiting_after_crash on run (run_after) where status = 'pending' and crashes > 0;
