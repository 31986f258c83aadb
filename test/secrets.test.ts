/** Secrets that all nodes share: each can open its own box, a later one gets one, a removed one nothing. */
import { afterEach, describe, expect, test } from 'bun:test'
import { SeededRandom } from '../src/base/random.ts'
import type { Self } from '../src/cluster/contract.ts'
import { ClusterSecrets } from '../src/cluster/secrets.ts'
import { Cast } from './cast.ts'
import { carry } from './exchange.ts'
import { Room } from './rooms.ts'

const rooms: Room[] = []
afterEach(() => {
  for (const room of rooms.splice(0)) {
    room.close()
    room.remove()
  }
})

let seed = 1
function node(cast: Cast, self: Self) {
  const room = new Room()
  rooms.push(room)
  seed += 1
  const secrets = new ClusterSecrets({
    rows: room.rows,
    roster: cast.roster(self),
    random: new SeededRandom(seed),
  })
  return { room, secrets, self }
}

const SECRET = new Uint8Array([1, 2, 3, 4])

describe('a secret', () => {
  test('is read on every node that was there, and stands nowhere in clear', () => {
    const cast = new Cast()
    const [a, b] = [node(cast, cast.add('a')), node(cast, cast.add('b'))]
    a.secrets.put('ann', 'dkim:example.com:s1', Buffer.from('a very private key'))
    carry(a.room, b.room)
    for (const { secrets } of [a, b]) {
      expect(Buffer.from(secrets.get('dkim:example.com:s1') ?? []).toString()).toBe(
        'a very private key',
      )
      expect(secrets.names()).toEqual(['dkim:example.com:s1'])
      expect(secrets.get('dkim:example.com:s2')).toBeNull()
    }
    const rows = JSON.stringify(b.room.rows.list('sealed'))
    expect(rows).not.toContain('private')
    expect(rows).not.toContain(Buffer.from('a very private key').toString('base64').slice(0, 16))
  })

  test('comes to a node that joins later from whichever node has it, and is written once', () => {
    const cast = new Cast()
    const [a, b] = [node(cast, cast.add('a')), node(cast, cast.add('b'))]
    a.secrets.put('ann', 'one', SECRET)
    carry(a.room, b.room)
    const c = node(cast, cast.add('c'))
    carry(b.room, c.room)
    expect(c.secrets.get('one')).toBeNull()
    expect(b.secrets.share()).toBe(1)
    expect(b.secrets.share()).toBe(0)
    carry(b.room, c.room)
    expect(c.secrets.get('one')).toEqual(SECRET)
    expect(c.secrets.share()).toBe(0)
  })

  test('is sealed for who joins by itself, when the roster says so', () => {
    const cast = new Cast()
    const a = node(cast, cast.add('a'))
    a.secrets.put('ann', 'one', SECRET)
    const c = node(cast, cast.add('c'))
    cast.change(c.self.node, { name: 'mx-c' })
    carry(a.room, c.room)
    expect(c.secrets.get('one')).toEqual(SECRET)
  })

  test('a removed node gets no box of a new one, and its old boxes go', () => {
    const cast = new Cast()
    const [a, b] = [node(cast, cast.add('a')), node(cast, cast.add('b'))]
    a.secrets.put('ann', 'one', SECRET)
    cast.change(b.self.node, { standing: 'evicted' })
    a.secrets.put('ann', 'two', SECRET)
    carry(a.room, b.room)
    expect(b.secrets.get('two')).toBeNull()
    expect(b.secrets.get('one')).toBeNull()
    expect(a.secrets.get('one')).toEqual(SECRET)
  })

  test('a box of one name or one node opens nothing as another', () => {
    const cast = new Cast()
    const [a, b] = [node(cast, cast.add('a')), node(cast, cast.add('b'))]
    a.secrets.put('ann', 'one', SECRET)
    const box = (to: Self): string =>
      a.room.rows.cell('sealed', `one/${to.node}`)?.heads[0]?.value ?? ''
    a.room.rows.write('sealed', `two/${a.self.node}`, box(a.self), 'mallory')
    expect(a.secrets.get('two')).toBeNull()
    a.room.rows.write('sealed', `one/${a.self.node}`, box(b.self), 'mallory')
    expect(a.secrets.get('one')).toBeNull()
    for (const broken of ['', '{}', '{"box":1}', '{"box":"AAAA"}', 'null']) {
      a.room.rows.write('sealed', `one/${a.self.node}`, broken, 'mallory')
      expect(a.secrets.get('one')).toBeNull()
    }
  })

  test('is another one under the same name, and gone when it is removed', () => {
    const cast = new Cast()
    const [a, b] = [node(cast, cast.add('a')), node(cast, cast.add('b'))]
    a.secrets.put('ann', 'one', SECRET)
    expect(a.secrets.get('one')).toEqual(SECRET)
    a.secrets.put('ann', 'one', new Uint8Array([9]))
    expect(a.secrets.get('one')).toEqual(new Uint8Array([9]))
    a.secrets.remove('ann', 'one')
    carry(a.room, b.room)
    expect([a.secrets.get('one'), b.secrets.get('one')]).toEqual([null, null])
    expect(a.secrets.names()).toEqual([])
    expect(b.secrets.share()).toBe(0)
  })
})
