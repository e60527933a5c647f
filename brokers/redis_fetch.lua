-- ARGV: unacked, index, tag prefix, count, largest message, bytes that end the batch, steps, rotate, pops at once, queues;
-- for each queue its name as JSON and its lists by step ('' one that is known to be empty).
-- Answer: seconds, microseconds, more (stopped before the lists were empty), then pairs: 16 * queue + step and the message
-- (its size if it is too large, -1 if the list is none).
local A, call, try = ARGV, redis.call, redis.pcall
local unacked, index, prefix, want = A[1], A[2], A[3], A[4] + 0
local largest, full, steps, rotate, pops = A[5] + 0, A[6] + 0, A[7] + 0, A[8] == '1', A[9] + 0
local now = call('TIME')
local out, n, bytes = {now[1] + 0, now[2] + 0, 0}, 0, 0
local entries, messages, lists, order = {}, {}, {}, {}
for i = 1, A[10] do order[i] = 11 + (i - 1) * (steps + 1) end
for s = 1, steps do
  local empty, live = {}, #order
  while live > 0 and n < want and bytes < full do
    local i = 1
    while empty[order[i]] do i = i + 1 end
    local q = order[i]
    local list, chunk, got, before = A[q + s], 1, nil, n
    if live == 1 or not rotate then chunk = math.min(want - n, pops) end
    if list ~= '' then got = chunk > 1 and try('RPOP', list, chunk) or chunk == 1 and try('RPOP', list) end
    if got and got.err then
      out[#out + 1] = q * 16 + s
      out[#out + 1] = -1
    elseif got then
      if type(got) == 'string' then got = {got} end
      for _, m in ipairs(got) do
        n = n + 1
        bytes = bytes + #m
        entries[2 * n - 1] = prefix .. n
        entries[2 * n] = '[' .. m .. ',"",' .. A[q] .. ']'
        messages[n] = m
        lists[n] = list
        out[#out + 1] = q * 16 + s
        out[#out + 1] = #m > largest and #m or m
      end
    end
    if n - before < chunk then empty[q] = true live = live - 1 end
    if n > before and rotate and #order > 1 then table.remove(order, i) order[#order + 1] = q end
  end
  if live > 0 then out[3] = 1 break end
end
local score = string.format('%d.%06d', now[1], now[2])
-- A small sorted set is a list that is searched from its head, with each score read as text: dozens of additions cost more than all
-- else. A member of over 64 bytes makes a tree of it, and it stays one when that member has gone.
local seed = n >= 8 and prefix .. string.rep('-', 65)
if seed then try('ZADD', index, score, seed) end
for i = 1, 2 * n, 200 do
  local scores, last = {}, math.min(i + 199, 2 * n)
  for k = i, last, 2 do
    scores[k - i + 1] = score
    scores[k - i + 2] = entries[k]
  end
  local put = try('HSET', unacked, unpack(entries, i, last))
  if type(put) == 'number' then put = try('ZADD', index, unpack(scores)) end
  if type(put) ~= 'number' then
    -- Lua does not roll back: put all back where it was, and say why.
    for k = n, 1, -1 do
      call('RPUSH', lists[k], messages[k])
      try('HDEL', unacked, entries[2 * k - 1])
      try('ZREM', index, entries[2 * k - 1])
    end
    for key, kind in pairs({[unacked] = 'hash', [index] = 'zset'}) do
      local is = call('TYPE', key)['ok']
      if is ~= kind and is ~= 'none' then return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. is) end
    end
    return put
  end
end
if seed then try('ZREM', index, seed) end
return out
