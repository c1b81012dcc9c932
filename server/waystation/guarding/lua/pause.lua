-- Let nothing be taken for so long; only ever longer. KEYS: the pause. ARGV: seconds.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local seconds = math.min(tonumber(ARGV[1]), 1e8)
local till = now + seconds
if seconds > 0 and till > tonumber(redis.call('GET', KEYS[1]) or '0') then
    redis.call('SET', KEYS[1], string.format('%.17g', till), 'PX', math.ceil(seconds * 1000) + 1000)
end
return 1
