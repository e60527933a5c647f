-- A complete header: the stored tree of its results, if there is one, and its parts in their order.
-- ARGV: what the chord's keys begin with.
local j = ARGV[1] .. '.j'
local kind = redis.call('TYPE', j)['ok']
local parts = {}
if kind == 'zset' then
  parts = redis.call('ZRANGE', j, 0, -1)
elseif kind == 'list' then
  parts = redis.call('LRANGE', j, 0, -1)
end
return {redis.call('GET', ARGV[1]), parts}
