-- Become, or stay, the holder of a lock. KEYS: the lock. ARGV: holder, milliseconds. Returns 1 for whoever is.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
