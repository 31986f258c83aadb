/** One datagram: who can open it, how often, and what garbage does. */
import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import type { NodeId } from '../src/base/ids.ts'
import type { Member, Self } from '../src/cluster/contract.ts'
import { newKeys } from '../src/cluster/keys.ts'
import {
  decodeLetter,
  encodeLetter,
  INCARNATION_MAX,
  type Item,
  LETTER_BYTES_MAX,
  type Letter,
} from '../src/cluster/letter.ts'
import { DATAGRAM_BYTES_MAX } from '../src/cluster/network.ts'
import { Packets, ReplayWindow, Sources } from '../src/cluster/packet.ts'
import { ManualClock } from './clock.ts'
import { Dice } from './sim/dice.ts'

const CLUSTER = '00112233445566aa'
const dice = new Dice(7)

type End = { readonly self: Self; readonly member: Member; readonly packets: Packets }

function end(index: number, options: { cluster?: string; epoch?: number; instance?: number } = {}) {
  const source = dice.split(`node ${index}`)
  const node = Buffer.from(source.bytes(8)).toString('hex') as NodeId
  const keys = newKeys(source)
  const epoch = options.epoch ?? 1
  const instance = (options.instance ?? index).toString(16).padStart(12, '0')
  const self: Self = { node, keys, instance, epoch, version: '0' }
  const member: Member = {
    node,
    name: `n${index}`,
    standing: 'member',
    exchange: keys.exchange.public,
    sign: keys.sign.public,
    peer: [],
    smtp: '',
    web: '',
    version: '0',
    features: [],
    drain: 'accepting',
    admittedBy: null,
    admittedMs: 0,
  }
  const packets = new Packets(self, options.cluster ?? CLUSTER, dice.split(`chance ${index}`))
  return { self, member, packets }
}

function meet(...ends: readonly End[]): void {
  for (const one of ends) {
    one.packets.speakWith(ends.filter((other) => other !== one).map(({ member }) => member))
  }
}

function letter(items: readonly Item[] = [], epoch = 1): Letter {
  return { incarnation: epoch * 0x1_0000, heard: { udp: true, tcp: false }, items }
}

/** For the run that `to` is. */
function sealed(from: End, to: End, content = letter()): Uint8Array {
  const packet = from.packets.seal(to.member.node, content, to.self.instance)
  if (packet === null) throw new Error('not a peer')
  return packet
}

const PING: Item = { kind: 'ping', probe: '0123456789abcdef' }

describe('a letter', () => {
  const id = fc
    .uint8Array({ minLength: 8, maxLength: 8 })
    .map((bytes) => Buffer.from(bytes).toString('hex'))
  const incarnation = fc.integer({ min: 0, max: INCARNATION_MAX })
  const item: fc.Arbitrary<Item> = fc.oneof(
    fc.record({ kind: fc.constantFrom('ping', 'ack', 'nack'), probe: id }),
    fc.record({ kind: fc.constant('ask'), probe: id, target: id }),
    fc.record({ kind: fc.constantFrom('alive', 'suspect'), node: id, incarnation }),
  ) as fc.Arbitrary<Item>

  test('says after the wire what it said before', () => {
    const heard = fc.record({ udp: fc.boolean(), tcp: fc.boolean() })
    const letters = fc.record({ incarnation, heard, items: fc.array(item, { maxLength: 40 }) })
    fc.assert(
      fc.property(letters, (before) => {
        expect(decodeLetter(encodeLetter(before))).toEqual(before)
      }),
    )
  })

  test('gives a time of a way to five percent, and keeps yes, no and unknown apart', () => {
    for (const ms of [0.1, 0.7, 3, 20, 180, 4_000]) {
      const links = [
        { tcp: { works: true, ms }, udp: { works: false, ms: null } },
        { tcp: { works: true, ms: null }, udp: { works: null, ms: null } },
      ]
      const sent: Item = { kind: 'links', rosterHash: 0xfedcba98, first: 300, links }
      const back = decodeLetter(encodeLetter(letter([sent])))?.items[0]
      if (back?.kind !== 'links') throw new Error('not the same item')
      expect(back).toMatchObject({ rosterHash: 0xfedcba98, first: 300 })
      expect(Math.abs((back.links[0]?.tcp.ms ?? 0) - ms)).toBeLessThanOrEqual(0.05 * ms + 0.05)
      expect(back.links[0]?.udp).toEqual({ works: false, ms: null })
      expect(back.links[1]).toEqual(links[1] as (typeof back.links)[number])
    }
  })

  test('of a later version is read as far as it is understood', () => {
    const known = encodeLetter(letter([PING]))
    const longer = Uint8Array.of(...known.subarray(0, 8), 9, ...known.subarray(9), 77)
    const unknown = Uint8Array.of(99, 3, 1, 2, 3)
    expect(decodeLetter(Uint8Array.of(...longer, ...unknown))?.items).toEqual([PING])
  })

  test('cut off anywhere inside an item, or longer than a packet, is none', () => {
    const whole = encodeLetter(
      letter([PING, { kind: 'ask', probe: 'ff'.repeat(8), target: 'aa'.repeat(8) as NodeId }]),
    )
    const ends = new Set([7, 17, whole.length])
    for (let length = 0; length <= whole.length; length += 1) {
      expect(decodeLetter(whole.subarray(0, length)) !== null).toBe(ends.has(length))
    }
    expect(decodeLetter(new Uint8Array(LETTER_BYTES_MAX + 1))).toBeNull()
  })
})

describe('a packet', () => {
  test('is opened by the one it is for, with all that it says', () => {
    const [a, b] = [end(1), end(2)]
    meet(a, b)
    expect(b.packets.open(sealed(a, b, letter([PING])))).toEqual({
      from: a.member.node,
      instance: a.self.instance,
      sequence: 1,
      order: 'next',
      letter: letter([PING]),
    })
  })

  test('with a ping has about 120 bytes on the wire, and the largest has 1,200', () => {
    const [a, b] = [end(1), end(2)]
    meet(a, b)
    expect(sealed(a, b, letter([PING])).length + 28).toBe(107)
    const words = Array.from({ length: 70 }, (_, index): Item => {
      return { kind: 'alive', node: index.toString(16).padStart(16, '0') as NodeId, incarnation: 1 }
    })
    expect(sealed(a, b, letter([...words, PING])).length).toBeLessThanOrEqual(DATAGRAM_BYTES_MAX)
    expect(() => a.packets.seal(b.member.node, letter([...words, ...words]))).toThrow()
  })

  test('is for one node: not for another, not back to its sender, not in another cluster', () => {
    const [a, b, c] = [end(1), end(2), end(3)]
    meet(a, b, c)
    const packet = sealed(a, b)
    expect(c.packets.open(packet)).toBe('stranger')
    expect(a.packets.open(packet)).toBe('stranger')
    const back = Uint8Array.from(packet)
    back.set(packet.subarray(4, 8), 8)
    back.set(packet.subarray(8, 12), 4)
    expect(a.packets.open(back)).toBe('forged')
    const other = end(2, { cluster: '00112233445566ab' })
    other.packets.speakWith([a.member])
    expect(other.packets.open(packet)).toBe('forged')
    expect(b.packets.open(packet)).toMatchObject({ order: 'next' })
  })

  test('with any bit flipped or any byte cut off is not opened (K02)', () => {
    const [a, b] = [end(1), end(2)]
    meet(a, b)
    const packet = sealed(a, b, letter([PING]))
    for (let bit = 0; bit < packet.length * 8; bit += 1) {
      const flipped = Uint8Array.from(packet)
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(b.packets.open(flipped)).toBeString()
    }
    for (let length = 0; length < packet.length; length += 1) {
      expect(b.packets.open(packet.subarray(0, length))).toBeString()
    }
    expect(b.packets.open(packet)).toMatchObject({ order: 'next' })
  })

  test('is taken once, also out of order, and not when it is far behind (K01)', () => {
    const [a, b] = [end(1), end(2)]
    meet(a, b)
    const packets = Array.from({ length: 1_100 }, () => sealed(a, b))
    const at = (index: number) => b.packets.open(packets[index] as Uint8Array)
    expect(at(1)).toMatchObject({ order: 'next' })
    expect(at(0)).toMatchObject({ order: 'late' })
    expect([at(0), at(1)]).toEqual(['replayed', 'replayed'])
    expect(at(1_099)).toMatchObject({ order: 'next' })
    expect(at(1_098)).toMatchObject({ order: 'late' })
    expect([at(2), at(1_098), at(1_099)]).toEqual(['replayed', 'replayed', 'replayed'])
  })

  test('for an earlier run of the receiver is not opened, whatever its header says (K01)', () => {
    const [a, b] = [end(1), end(2, { instance: 0xaaaa_0000_0001 })]
    meet(a, b)
    const packet = sealed(a, b)
    for (const instance of [0xaaaa_0000_0002, 0xbbbb_0000_0001]) {
      const anew = end(2, { epoch: 2, instance })
      anew.packets.speakWith([a.member])
      const isAlike = instance === 0xaaaa_0000_0002
      expect(anew.packets.open(packet)).toBe(isAlike ? 'forged' : 'outdated')
      for (const tag of [0, 0xaaaa, 0xbbbb]) {
        const changed = Buffer.from(packet)
        changed.writeUInt16BE(tag, 2)
        expect(anew.packets.open(changed)).toBeString()
      }
    }
    expect(b.packets.open(packet)).toMatchObject({ order: 'next' })
  })

  test('for no run is a first contact, until a run of the peer spoke with ours', () => {
    const [a, b] = [end(1), end(2)]
    meet(a, b)
    const say = (from: End, to: End) => from.packets.seal(to.member.node, letter()) as Uint8Array
    const first = say(a, b)
    expect(b.packets.open(first)).toMatchObject({ order: 'first', instance: a.self.instance })
    expect(b.packets.open(first)).toBe('replayed')
    // It may be from before: no run of a is believed in yet.
    expect(a.packets.open(say(b, a))).toMatchObject({ order: 'first' })
    expect(a.packets.open(sealed(b, a))).toMatchObject({ order: 'next' })
    expect(b.packets.open(say(a, b))).toMatchObject({ order: 'next' })
    expect(a.packets.open(say(b, a))).toMatchObject({ order: 'next' })
  })

  test('that was taken of an earlier start is not taken again after a later one spoke', () => {
    const b = end(2)
    const before = end(1, { epoch: 1, instance: 0xa })
    const after = end(1, { epoch: 2, instance: 0xb })
    meet(before, b)
    after.packets.speakWith([b.member])
    const taken = sealed(before, b, letter([], 1))
    expect(b.packets.open(taken)).toMatchObject({ order: 'next' })
    expect(b.packets.open(sealed(after, b, letter([], 2)))).toMatchObject({ order: 'next' })
    expect(b.packets.open(taken)).toBe('replayed')
  })

  test('of an earlier start is a rival once a later one spoke', () => {
    const b = end(2)
    const before = end(1, { epoch: 1, instance: 0xa })
    const after = end(1, { epoch: 2, instance: 0xb })
    meet(before, b)
    after.packets.speakWith([b.member])
    expect(b.packets.open(sealed(before, b, letter([], 1)))).toMatchObject({ order: 'next' })
    const held = sealed(before, b, letter([], 1))
    expect(b.packets.open(sealed(after, b, letter([], 2)))).toMatchObject({ order: 'next' })
    expect(b.packets.open(held)).toMatchObject({ order: 'rival' })
    expect(b.packets.open(sealed(after, b, letter([], 2)))).toMatchObject({ order: 'next' })
  })

  test('of a run that was adopted counts, and the one before it is the rival', () => {
    const b = end(2)
    const [known, restored] = [end(1, { instance: 0xa }), end(1, { instance: 0xb })]
    meet(known, b)
    restored.packets.speakWith([b.member])
    b.packets.open(sealed(known, b))
    const proof = sealed(restored, b)
    const rival = b.packets.open(proof)
    if (typeof rival === 'string') throw new Error(rival)
    expect(rival.order).toBe('rival')
    b.packets.adopt(rival)
    expect(b.packets.open(proof)).toBe('replayed')
    expect(b.packets.open(sealed(restored, b))).toMatchObject({ order: 'next' })
    expect(b.packets.open(sealed(known, b))).toMatchObject({ order: 'rival' })
  })

  test('of a node that is no peer any more is not opened, nor is one made for it', () => {
    const [a, b] = [end(1), end(2)]
    meet(a, b)
    const packet = sealed(a, b)
    b.packets.speakWith([])
    expect(b.packets.open(packet)).toBe('stranger')
    expect(b.packets.seal(a.member.node, letter())).toBeNull()
  })

  test('never has the nonce of another (K07)', () => {
    const [a, b] = [end(1), end(2)]
    meet(a, b)
    const nonces = Array.from({ length: 500 }, () =>
      Buffer.from(sealed(a, b).subarray(12, 36)).toString('hex'),
    )
    expect(new Set(nonces).size).toBe(500)
  })
})

test('the replay window takes each number once, whatever their order', () => {
  const numbers = fc.array(fc.integer({ min: 1, max: 5_000 }), { maxLength: 300 })
  fc.assert(
    fc.property(numbers, (sequence) => {
      const window = new ReplayWindow()
      const taken = new Set<number>()
      let highest = 0
      for (const number of sequence) {
        const isNew = !taken.has(number) && number > highest - 1_024
        const expected = !isNew ? null : number > highest ? 'next' : 'late'
        expect(window.take(number)).toBe(expected)
        if (isNew) taken.add(number)
        highest = Math.max(highest, number)
      }
    }),
  )
})

describe('a source', () => {
  test('may send 200 packets at once and 200 a second', () => {
    const clock = new ManualClock()
    const sources = new Sources(clock)
    const sent = () =>
      Array.from({ length: 500 }, () => sources.admit('192.0.2.1', false)).filter(Boolean).length
    expect(sent()).toBe(200)
    clock.advance(100)
    expect(sent()).toBe(20)
    clock.advance(60_000)
    expect(sent()).toBe(200)
    expect(sources.admit('192.0.2.2', false)).toBe(true)
  })

  test('that is a peer is heard through a flood of forged addresses', () => {
    const clock = new ManualClock()
    const sources = new Sources(clock)
    const admitted = Array.from({ length: 20_000 }, (_, index) => {
      return sources.admit(`2001:db8::${index.toString(16)}`, false)
    }).filter(Boolean).length
    expect(admitted).toBe(1_024)
    expect(sources.admit('192.0.2.1', true)).toBe(true)
    clock.advance(1_000)
    expect(sources.admit('2001:db8::ffff', false)).toBe(true)
  })
})
