-- Take from several buckets, of each its own cost, or from none.
-- KEYS: n buckets, then the pauses of their names. ARGV: n, patience in seconds, then cost, amount, seconds of each.
-- Returns {1 if taken, the wait in seconds, what is left in each, rounded down}.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local n, patience = tonumber(ARGV[1]), tonumber(ARGV[2])
local wait, levels = 0, {}
for i = n + 1, #KEYS do
    wait = math.max(wait, tonumber(redis.call('GET', KEYS[i]) or '0') - now)
end
for i = 1, n do
    local cost, amount, seconds = tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
    local kept = redis.call('HMGET', KEYS[i], 'level', 'at')
    levels[i] = amount  -- a bucket that nobody remembers is full
    if kept[1] then
        local elapsed = math.max(0, now - tonumber(kept[2]))
        levels[i] = math.min(amount, tonumber(kept[1]) + elapsed * amount / seconds)
    end
    -- A call larger than the whole bucket passes when the bucket is full, and leaves a debt.
    wait = math.max(wait, (math.min(cost, amount) - levels[i]) * seconds / amount)
end
if wait < 1e-9 then
    wait = 0
end
local taken = wait <= patience
local answer = {taken and 1 or 0, string.format('%.17g', wait)}
for i = 1, n do
    if taken then
        local cost, amount, seconds = tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
        levels[i] = levels[i] - cost
        redis.call('HSET', KEYS[i], 'level', string.format('%.17g', levels[i]), 'at', string.format('%.17g', now))
        local until_full = math.min((amount - levels[i]) * seconds / amount, 1e8)
        redis.call('EXPIRE', KEYS[i], math.ceil(math.max(0, until_full)) + 1)
    end
    answer[i + 2] = string.format('%d', math.floor(levels[i]))
end
return answer
