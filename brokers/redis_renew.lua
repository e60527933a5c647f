-- ARGV: unacked, index, tags. Answer: seconds, microseconds, the tags that are gone.
local now = redis.call('TIME')
local score = string.format('%d.%06d', now[1], now[2])
local out = {tonumber(now[1]), tonumber(now[2])}
for i = 3, #ARGV do
  if redis.call('HEXISTS', ARGV[1], ARGV[i]) == 1 then redis.call('ZADD', ARGV[2], score, ARGV[i])
  else out[#out + 1] = ARGV[i] end
end
return out
