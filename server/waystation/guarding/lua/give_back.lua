-- Return what was taken and not used to several buckets; a negative cost takes what was used beyond.
-- KEYS: the buckets. ARGV: cost, then amount and seconds of each.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local cost = tonumber(ARGV[1])
for i = 1, #KEYS do
    local amount, seconds = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
    local kept = redis.call('HMGET', KEYS[i], 'level', 'at')
    local level = amount
    if kept[1] then
        level = math.min(amount, tonumber(kept[1]) + math.max(0, now - tonumber(kept[2])) * amount / seconds)
    end
    level = math.min(amount, level + cost)
    redis.call('HSET', KEYS[i], 'level', string.format('%.17g', level), 'at', string.format('%.17g', now))
    local until_full = math.min((amount - level) * seconds / amount, 1e8)
    redis.call('EXPIRE', KEYS[i], math.ceil(math.max(0, until_full)) + 1)
end
return 1
