-- Keep a shared value unless a newer one is there. KEYS: the value. ARGV: version, the value as it is kept, milliseconds.
-- Versions have as many digits as the one before for some centuries: they are compared as texts.
local kept = redis.call('GET', KEYS[1])
if kept and string.sub(kept, 1, 16) >= ARGV[1] then
    return 0
end
if tonumber(ARGV[3]) > 0 then
    redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
else
    redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2])
end
return 1
