-- ARGV: index, unacked, parked mark, queue, limit, lists. Empties the lists and a page of the queue's parked entries. Answer: how many
-- went, whether more are parked.
local n, gone, at = 0, {}, 0
for i = 6, #ARGV do n = n + redis.call('LLEN', ARGV[i]) redis.call('DEL', ARGV[i]) end
local limit, page = tonumber(ARGV[5]), nil
repeat
  page = redis.call('ZREVRANGE', ARGV[1], at, at + 999)
  for _, tag in ipairs(page) do
    if tag:sub(1, #ARGV[3]) == ARGV[3] and tag:match('^[^:]*:%d+:[^:]*:%d+:(.*)$') == ARGV[4] and #gone < limit then
      gone[#gone + 1] = tag
    end
  end
  at = at + 1000
until #page < 1000 or #gone >= limit
for _, tag in ipairs(gone) do redis.call('HDEL', ARGV[2], tag) redis.call('ZREM', ARGV[1], tag) end
return {n + #gone, #gone >= limit and 1 or 0}
