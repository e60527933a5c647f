-- ARGV: unacked, index, tag prefix, then pairs: tag and the score it must still have. Answer: seconds, microseconds, then pairs:
-- number and entry, which is now under our tag of that number.
local now = redis.call('TIME')
local score = string.format('%d.%06d', now[1], now[2])
local out = {tonumber(now[1]), tonumber(now[2])}
for i = 4, #ARGV, 2 do
  local tag, n = ARGV[i], (i - 2) / 2
  if redis.call('ZSCORE', ARGV[2], tag) == ARGV[i + 1] then
    local entry = redis.call('HGET', ARGV[1], tag)
    if entry then
      redis.call('HSET', ARGV[1], ARGV[3] .. n, entry)
      redis.call('ZADD', ARGV[2], score, ARGV[3] .. n)
      redis.call('HDEL', ARGV[1], tag)
      out[#out + 1] = n
      out[#out + 1] = entry
    end
    redis.call('ZREM', ARGV[2], tag)
  end
end
return out
