-- Whether a target may be called. KEYS: the breaker. ARGV: seconds that a probe may take.
-- Returns {1 if allowed, 1 if it is the probe, the seconds until it may be}.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local kept = redis.call('HMGET', KEYS[1], 'open_until', 'probe_until')
if not kept[1] then
    return {1, 0, '0'}
end
local till = tonumber(kept[1])
if now >= till then
    till = tonumber(kept[2] or '0')
end
if now < till then
    return {0, 0, string.format('%.17g', till - now)}
end
redis.call('HSET', KEYS[1], 'probe_until', string.format('%.17g', now + tonumber(ARGV[1])))
return {1, 1, '0'}
