-- Count a call's outcome. KEYS: the breaker, its outcomes. ARGV: 1 if it went well, 1 if it was the probe, seconds that the
-- provider asked for, failure rate, minimum of calls, window, cool-down. Returns 1 if the breaker opened or closed by it.
--
-- Outcomes are counted in twentieths of the window: what is kept does not grow with the number of calls.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local ok, is_probe, asked = ARGV[1] == '1', ARGV[2] == '1', tonumber(ARGV[3])
local rate, minimum, window, cooldown = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

local function open_until(till)
    till = math.min(till, now + 1e8)
    redis.call('HSET', KEYS[1], 'open_until', string.format('%.17g', till))
    redis.call('EXPIRE', KEYS[1], math.ceil(till - now) + 86400)
end

local open = tonumber(redis.call('HGET', KEYS[1], 'open_until') or '-1')
if open < 0 then
    local slice = math.floor(now * 20 / window)
    redis.call('HINCRBY', KEYS[2], 'calls:' .. string.format('%d', slice), 1)
    if not ok then
        redis.call('HINCRBY', KEYS[2], 'failed:' .. string.format('%d', slice), 1)
    end
    redis.call('PEXPIRE', KEYS[2], math.ceil(window * 1000) + 1000)
    if ok and redis.call('HLEN', KEYS[2]) < 80 then
        return 0
    end
    local calls, failed, kept = 0, 0, redis.call('HGETALL', KEYS[2])
    for i = 1, #kept, 2 do
        local what, when = string.match(kept[i], '^(%a+):(%-?%d+)$')
        if tonumber(when) <= slice - 20 then
            redis.call('HDEL', KEYS[2], kept[i])
        elseif what == 'calls' then
            calls = calls + tonumber(kept[i + 1])
        else
            failed = failed + tonumber(kept[i + 1])
        end
    end
    if ok or calls < minimum or failed < rate * calls then
        return 0
    end
    open_until(now + math.max(cooldown, asked))
    return 1
end
if ok and is_probe then
    redis.call('DEL', KEYS[1], KEYS[2])
    return 1
end
if not ok then
    open_until(math.max(open, now + math.max(is_probe and cooldown or 0, asked)))
end
if is_probe then
    redis.call('HDEL', KEYS[1], 'probe_until')
end
return 0
