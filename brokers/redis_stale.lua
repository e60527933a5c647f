-- ARGV: index, held mark, parked mark, lease, visibility timeout, limit. Answer: seconds, microseconds, then pairs: tag and score of
-- what is older than its kind may be.
local now = redis.call('TIME')
local t = now[1] + now[2] / 1000000
local held, parked, lease, timeout = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local out, at, limit = {tonumber(now[1]), tonumber(now[2])}, 0, tonumber(ARGV[6])
repeat
  local page = redis.call('ZRANGEBYSCORE', ARGV[1], '-inf', string.format('%.6f', t - math.min(lease, timeout)),
                          'WITHSCORES', 'LIMIT', at, 500)
  for i = 1, #page, 2 do
    local tag, age = page[i], t - tonumber(page[i + 1])
    local ours = tag:sub(1, #held) == held
    if tag:sub(1, #parked) ~= parked and age > (ours and lease or timeout) and #out < limit then
      out[#out + 1] = tag
      out[#out + 1] = page[i + 1]
    end
  end
  at = at + 500
until #page < 1000 or #out >= limit
return out
