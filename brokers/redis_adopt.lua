-- ARGV: unacked, index, tag prefix, count. Answer: seconds, microseconds, then pairs: number and entry, with a fresh score.
local now = redis.call('TIME')
local score = string.format('%d.%06d', now[1], now[2])
local out = {tonumber(now[1]), tonumber(now[2])}
for i = 1, tonumber(ARGV[4]) do
  local m = redis.call('HGET', ARGV[1], ARGV[3] .. i)
  if m then
    redis.call('ZADD', ARGV[2], score, ARGV[3] .. i)
    out[#out + 1] = i
    out[#out + 1] = m
  end
end
return out
