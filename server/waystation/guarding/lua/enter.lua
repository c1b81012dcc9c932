-- Take one of so many places, or renew it. KEYS: the places. ARGV: limit, holder, seconds. Returns 1 for whoever has one.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local seconds = math.min(tonumber(ARGV[3]), 1e8)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.17g', now))
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then
    return 0
end
redis.call('ZADD', KEYS[1], string.format('%.17g', now + seconds), ARGV[2])
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
redis.call('PEXPIRE', KEYS[1], math.ceil(math.max(0, tonumber(last[2]) - now) * 1000) + 1000)
return 1
