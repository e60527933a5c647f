-- ARGV: unacked, index, held mark, parked mark, key prefix, separator, limit.
-- Moves what is due to the front of its list. Answer: seconds, microseconds, moved, more, whether entries of Python's are
-- there, the next due time (or "").
local call = redis.call
local unacked, index, held, parked, prefix, sep = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local limit = tonumber(ARGV[7])
local now = call('TIME')
local score = string.format('%d.%06d', now[1], now[2])
local moved, foreign = 0, 0
local function back(tag)
  local step, queue = tag:match('^[^:]*:(%d+):[^:]*:%d+:(.*)$')
  local entry = call('HGET', unacked, tag)
  local m = entry and entry:match('^%[(.*),"",".*"%]$')
  if m and step then
    local list = prefix .. queue
    if step ~= '0' then list = list .. sep .. step end
    local ok = redis.pcall('RPUSH', list, m)
    if type(ok) == 'table' and ok.err then return end
    -- not a list: stays until somebody puts that right
    moved = moved + 1
  elseif entry then return end
  call('HDEL', unacked, tag)
  call('ZREM', index, tag)
end
local function look(tags)
  for _, tag in ipairs(tags) do
    if tag:sub(1, #parked) == parked then back(tag)
    elseif tag:sub(1, #held) ~= held then foreign = 1 end
  end
end
local tags = call('ZRANGEBYSCORE', index, '-inf', score, 'LIMIT', 0, limit)
look(tags)
local more = 0
if #tags == limit then
  -- There is more, and what is due just now may be hidden behind what is held.
  if moved > 0 then more = 1 end
  tags = call('ZRANGEBYSCORE', index, string.format('%d.%06d', now[1] - 2, now[2]), score, 'LIMIT', 0, limit)
  look(tags)
end
local due = call('ZRANGEBYSCORE', index, '(' .. score, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
return {tonumber(now[1]), tonumber(now[2]), moved, more, foreign, due[2] or ''}
