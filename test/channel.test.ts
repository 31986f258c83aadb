/** The channel between two nodes: what strangers get, what is on the wire, what waits. */
import { describe, expect, test } from 'bun:test'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import { BACKLOG_BYTES_MAX, SecureChannel } from '../src/cluster/channel.ts'
import { MESSAGE_BYTES_MAX, type PeerAddress } from '../src/cluster/contract.ts'
import { Inbox } from '../src/cluster/inbox.ts'
import { PROTOCOL } from '../src/cluster/link.ts'
import { nextKey, nextKeyGcm, nonceOf, nonceOfGcm } from '../src/cluster/noise.ts'
import { hmac, newExchangePair, open, openGcm, seal, sha256 } from '../src/cluster/seal.ts'
import {
  ChannelError,
  type DialOptions,
  dialSecure,
  Gate,
  type GateOptions,
  type JoinGate,
} from '../src/cluster/secure.ts'
import { ManualClock } from './clock.ts'
import { Pipes, settled } from './pipes.ts'

const AT: PeerAddress = { host: 'b', port: 7_900 }
const CLUSTER = '00112233aabbccdd'
/** The one whose long frames may be sealed on other threads. */
const THREADED = { min: 1, max: 1 }

type Got = { readonly type: number; readonly body: Uint8Array }

/** A gate at host b, and whoever wants to come through it. */
class Room {
  readonly clock = new ManualClock()
  readonly random: SeededRandom
  readonly pipes = new Pipes()
  readonly lines: string[] = []
  readonly observer: Observer
  readonly deps
  readonly a
  readonly b
  readonly arrived: SecureChannel[] = []
  /** What came out at b, and at a. */
  readonly gotB: Got[] = []
  readonly gotA: Got[] = []
  readonly closedB: string[] = []
  readonly closedA: string[] = []
  gate: Gate

  constructor(over: Partial<GateOptions> = {}, seed = 1) {
    this.random = new SeededRandom(seed)
    this.observer = new Observer(this.clock, (line) => this.lines.push(line), 'debug')
    this.deps = { clock: this.clock, random: this.random, observer: this.observer }
    this.a = newExchangePair(this.random)
    this.b = newExchangePair(this.random)
    this.gate = this.newGate(over)
  }

  newGate(over: Partial<GateOptions> = {}): Gate {
    return new Gate(
      {
        own: this.b,
        clusterId: CLUSTER,
        protocol: PROTOCOL,
        parallelCrypto: false,
        onJoin: null,
        greet: () => ({ greeting: Uint8Array.of(7), refusal: null }),
        opened: (channel) => this.take(channel),
        ...over,
      },
      this.deps,
    )
  }

  take(channel: SecureChannel): void {
    this.arrived.push(channel)
    channel.start({
      message: (type, body) => this.gotB.push({ type, body }),
      closed: (why) => this.closedB.push(why),
    })
  }

  async open(): Promise<this> {
    await this.pipes.at('b').listen(AT, (stream) => this.gate.accept(stream))
    return this
  }

  async dial(over: Partial<DialOptions> = {}, host = 'a'): Promise<SecureChannel> {
    const options: DialOptions = {
      own: this.a,
      clusterId: CLUSTER,
      protocol: PROTOCOL,
      parallelCrypto: false,
      purpose: { pattern: 'IK' },
      peer: this.b.public,
      greeting: Uint8Array.of(9),
      ...over,
    }
    const channel = await dialSecure(this.pipes.at(host), AT, options, this.deps)
    channel.start({
      message: (type, body) => this.gotA.push({ type, body }),
      closed: (why) => this.closedA.push(why),
    })
    return channel
  }

  async failed(over: Partial<DialOptions> = {}): Promise<ChannelError> {
    try {
      await this.dial(over)
    } catch (error) {
      if (error instanceof ChannelError) return error
      throw error
    }
    throw new Error('it went through')
  }

  async pass(ms: number): Promise<void> {
    this.clock.advance(ms)
    await settled()
  }

  /** Everything that went from one host to another. */
  wire(from: string): Uint8Array[] {
    return this.pipes.seen.filter((piece) => piece.from === from).map(({ bytes }) => bytes)
  }

  refusals(): string[] {
    this.observer.flush()
    return this.lines
      .flatMap((lines) => lines.trim().split('\n'))
      .map((line) => JSON.parse(line) as { event: string; why: string })
      .filter(({ event }) => event === 'gate.refused')
      .map(({ why }) => why)
  }
}

function text(words: string): Uint8Array {
  return new TextEncoder().encode(words)
}

describe('a channel', () => {
  test('both sides know whom they speak with, and that it is this one channel', async () => {
    const room = await new Room().open()
    const here = await room.dial()
    const [there] = room.arrived
    expect(here.peerExchangeKey).toEqual(room.b.public)
    expect(there?.peerExchangeKey).toEqual(room.a.public)
    expect(there?.handshakeHash).toEqual(here.handshakeHash)
    expect([here.greeting[0], there?.greeting[0]]).toEqual([7, 9])
    expect((await room.dial()).handshakeHash).not.toEqual(here.handshakeHash)
  })

  test('messages of all sizes arrive whole, in order, in any pieces', async () => {
    for (let max = PROTOCOL.min; max <= PROTOCOL.max; max += 1) {
      const room = await new Room().open()
      const here = await room.dial({ protocol: { min: 1, max } })
      expect(here.protocol).toBe(max)
      const sizes = [0, 1, 17, 16_384, 65_515, 65_516, 65_517, 200_000, MESSAGE_BYTES_MAX]
      const bodies = sizes.map((size) => room.random.bytes(size))
      for (const body of bodies) expect(here.send(5, body)).toBe(true)
      expect(room.gotB.map(({ body }) => body.length)).toEqual(sizes)
      for (const [place, body] of bodies.entries()) {
        expect(Buffer.compare(room.gotB[place]?.body ?? text(''), body)).toBe(0)
      }
      expect(room.arrived[0]?.send(6, text('back'))).toBe(true)
      expect(room.gotA).toEqual([{ type: 6, body: text('back') }])
    }
  })

  test('no frame is sealed under a nonce of before, also where the key is the same', async () => {
    const room = await new Room().open()
    const here = await room.dial()
    const before = room.wire('a').length
    for (let count = 0; count < 20; count += 1) here.send(5, text('the same words'))
    const frames = room.wire('a').slice(before)
    expect(frames.length).toBe(20)
    expect(new Set(frames.map((frame) => frame.toHex())).size).toBe(20)
  })

  test('a stream that is cut into single octets is the same stream', async () => {
    const room = await new Room().open()
    const { accept } = room.gate
    room.gate.accept = (stream) => {
      const handlers = accept.call(room.gate, stream)
      return {
        ...handlers,
        received: (bytes) => {
          for (const octet of bytes) handlers.received(Uint8Array.of(octet))
        },
      }
    }
    const here = await room.dial()
    here.send(5, text('piece by piece'))
    here.send(5, room.random.bytes(3_000))
    expect(room.gotB.map(({ body }) => body.length)).toEqual([14, 3_000])
  })

  test('no word of what is said is on the wire', async () => {
    const room = await new Room().open()
    const here = await room.dial({ greeting: text('who-is-calling') })
    here.send(5, text('postmaster@example.com wants the secret setting'))
    room.arrived[0]?.send(5, text('postmaster@example.com gets it'))
    const all = Buffer.concat(room.pipes.seen.map(({ bytes }) => bytes))
    for (const word of ['postmaster', 'secret', 'who-is', room.a.public]) {
      expect(all.includes(word)).toBe(false)
    }
    expect(all.includes('PST1')).toBe(true)
  })

  test('threads or not: the same message, opened by the other kind', async () => {
    for (const parallelCrypto of [true, false]) {
      const room = await new Room({ parallelCrypto: !parallelCrypto }).open()
      const here = await room.dial({ parallelCrypto, protocol: THREADED })
      const bodies = [300_000, 5, 70_000, 0, 16_384].map((size) => room.random.bytes(size))
      const all = new Promise<void>((resolve) => {
        const [there] = room.arrived
        there?.start({
          message: (type, body) => {
            room.gotB.push({ type, body })
            if (room.gotB.length === bodies.length) resolve()
          },
          closed: () => {},
        })
      })
      for (const body of bodies) here.send(5, body)
      await all
      for (const [place, body] of bodies.entries()) {
        expect(Buffer.compare(room.gotB[place]?.body ?? text('?'), body)).toBe(0)
      }
    }
  })

  test('the last words of a channel that ends arrive', async () => {
    for (const parallelCrypto of [false, true]) {
      const room = await new Room({ parallelCrypto }).open()
      const here = await room.dial({ parallelCrypto, protocol: THREADED })
      const closed = new Promise<void>((resolve) => {
        room.arrived[0]?.start({
          message: (type, body) => room.gotB.push({ type, body }),
          closed: () => resolve(),
        })
      })
      here.send(5, room.random.bytes(200_000))
      here.send(5, text('bye'))
      here.end()
      expect(here.send(5, text('too late'))).toBe(false)
      await closed
      expect(room.gotB.map(({ body }) => body.length)).toEqual([200_000, 3])
    }
  })

  test('what comes before anybody listens waits, but not without end', async () => {
    const room = new Room({ opened: (channel) => room.arrived.push(channel) })
    const here = await (await room.open()).dial()
    here.send(5, text('early'))
    const [there] = room.arrived
    there?.start({ message: (type, body) => room.gotB.push({ type, body }), closed: () => {} })
    expect(room.gotB).toEqual([{ type: 5, body: text('early') }])
    there?.hold()
    for (let count = 0; count < 5; count += 1) here.send(5, new Uint8Array(300_000))
    expect(room.closedA).toEqual(['closed by the other side'])
    expect(room.gotB.length).toBe(1)
  })
})

describe('keys of a channel', () => {
  test('change every two minutes, and the channel goes on (K08)', async () => {
    const room = await new Room().open()
    const here = await room.dial()
    const frames = () => room.wire('a').length
    here.send(5, text('first'))
    const before = frames()
    room.clock.advance(119_000)
    here.send(5, text('old key'))
    expect(frames() - before).toBe(1)
    room.clock.advance(2_000)
    here.send(5, text('new key'))
    room.arrived[0]?.send(5, text('answer'))
    expect(frames() - before).toBe(3)
    expect(room.gotB.map(({ body }) => new TextDecoder().decode(body))).toEqual([
      'first',
      'old key',
      'new key',
    ])
    expect(room.gotA.length).toBe(1)
  })

  test('the next key is that of Noise, whatever the cipher', () => {
    for (const isGcm of [false, true]) {
      const clock = new ManualClock()
      const key = new SeededRandom(8).bytes(32)
      const sent: Uint8Array[] = []
      const stream = {
        remote: AT,
        write: (bytes: Uint8Array) => sent.push(bytes.slice()) > 0,
        end: () => {},
        terminate: () => {},
      }
      const channel = new SecureChannel(
        stream,
        new Inbox(),
        { send: key, receive: key, hash: key, peer: key },
        { peer: key, protocol: isGcm ? 2 : 1, greeting: key },
        { parallelCrypto: false, confirmed: null },
        { clock, observer: new Observer(clock, () => {}), random: new SeededRandom(1) },
      )
      clock.advance(121_000)
      channel.send(5, text('under the next key'))
      // Before it: the first frame of all, and the word that the key changes.
      const frame = sent[2] ?? text('')
      const [head, sealed] = [frame.subarray(0, 4), frame.subarray(4)]
      const opened = isGcm
        ? openGcm(nextKeyGcm(key), nonceOfGcm(2), head, sealed)
        : open(nextKey(key), nonceOf(2), head, sealed)
      expect(opened).toEqual(text('under the next key'))
    }
  })

  test('a machine that slept sends nothing under the keys of before (K07)', async () => {
    const room = await new Room().open()
    const here = await room.dial()
    here.send(5, text('before'))
    const sent = room.wire('a').length
    const wallMs = room.clock.wallMs.bind(room.clock)
    room.clock.wallMs = () => wallMs() + 1_900
    expect(here.send(5, text('a small step'))).toBe(true)
    expect(room.wire('a').length).toBe(sent + 1)
    room.clock.wallMs = () => wallMs() + 4_000
    here.send(5, text('after'))
    expect(room.wire('a').length).toBe(sent + 1)
    expect(room.closedA[0]).toContain('the clock jumped')
  })
})

describe('an inbox', () => {
  test('gives what came in any pieces, pushed or lent, and keeps no view of what was lent', () => {
    const random = new SeededRandom(5)
    const stream = random.bytes(400_000)
    const inbox = new Inbox()
    let [came, read] = [0, 0]
    /** Frames of any length, each looked at before it is taken, as far as they are here. */
    const readAll = (): void => {
      for (;;) {
        const length = 1 + ((read * 7919) % 5) * 13_001 + (read % 5)
        if (inbox.peek(Math.min(3, length)) === null) return
        const frame = inbox.take(length)
        if (frame === null) return
        expect(Buffer.compare(frame, stream.subarray(read, read + length))).toBe(0)
        read += length
        expect(inbox.length).toBe(came - read)
      }
    }
    while (came < stream.length) {
      const piece = stream.slice(
        came,
        came + 1 + random.below(random.below(3) === 0 ? 90_000 : 900),
      )
      came += piece.length
      const how = random.below(3)
      if (how === 0) inbox.push(piece)
      // As while nobody listens: all of it stays.
      else inbox.lend(piece, how === 1 ? readAll : () => {})
      piece.fill(0)
      if (how === 0) readAll()
    }
    expect(read).toBeGreaterThan(stream.length - 60_000)
  })
})

describe('what waits', () => {
  test('a reader that does not read fills a bounded backlog, then nothing is taken (K17)', async () => {
    const room = await new Room().open()
    const here = await room.dial()
    room.pipes.freeze('b')
    const body = new Uint8Array(MESSAGE_BYTES_MAX)
    let taken = 0
    while (taken < 1_000 && here.send(5, body, true)) taken += 1
    expect(here.backlogBytes).toBeLessThanOrEqual(BACKLOG_BYTES_MAX)
    expect(here.backlogBytes).toBeGreaterThan(BACKLOG_BYTES_MAX / 2)
    expect(taken).toBeLessThan(20)
    while (here.send(5, new Uint8Array(1_000), true)) taken += 1
    // Bodies of mail cannot keep a beat out.
    expect(here.send(2, new Uint8Array(100_000))).toBe(true)
    let drained = 0
    here.onceDrained(() => {
      drained += 1
    })
    room.clock.advance(10)
    expect(drained).toBe(0)
    room.pipes.thaw('b')
    expect(drained).toBe(1)
    expect(here.backlogBytes).toBe(0)
    expect(room.gotB.length).toBe(taken + 1)
  })

  test('a beat passes the bodies that wait, frame by frame in turn', async () => {
    const room = await new Room().open()
    const here = await room.dial()
    room.pipes.freeze('b')
    for (let count = 0; count < 4; count += 1) here.send(11, new Uint8Array(300_000), true)
    here.send(2, text('beat'))
    room.pipes.thaw('b')
    expect(room.gotB.map(({ type }) => type)).toEqual([2, 11, 11, 11, 11])
    // And a flood of what is not bulk does not keep the bodies back.
    room.pipes.freeze('b')
    here.send(11, new Uint8Array(1_000), true)
    for (let count = 0; count < 20; count += 1) here.send(5, new Uint8Array(60_000))
    here.send(11, new Uint8Array(1_000), true)
    const before = room.gotB.length
    room.pipes.thaw('b')
    const types = room.gotB.slice(before).map(({ type }) => type)
    expect(types.lastIndexOf(11)).toBeLessThan(5)
  })

  test("is no view of what was sent: a body is its owner's again when it is taken", async () => {
    for (const [max, parallelCrypto] of [
      [1, false],
      [1, true],
      [2, false],
    ] as const) {
      const room = await new Room().open()
      const here = await room.dial({ protocol: { min: 1, max }, parallelCrypto })
      room.pipes.freeze('b')
      const bodies = [100_000, 300_000, 5_000].map((length) => room.random.bytes(length))
      const sent = bodies.map((body) => body.toHex())
      for (const body of bodies) {
        expect(here.send(11, body, true)).toBe(true)
        body.fill(0)
      }
      room.pipes.thaw('b')
      // Sealed by other threads, which no clock of ours moves.
      while (room.gotB.length < bodies.length && room.closedB.length === 0)
        await new Promise((resolve) => setImmediate(resolve))
      expect(room.gotB.map(({ body }) => body.toHex())).toEqual(sent)
    }
  })

  test('onceDrained on an empty backlog calls soon', async () => {
    const room = await new Room().open()
    const here = await room.dial()
    let calls = 0
    here.onceDrained(() => {
      calls += 1
    })
    expect(calls).toBe(0)
    room.clock.advance(0)
    expect(calls).toBe(1)
  })
})

describe('frames of others', () => {
  /** A channel whose frames from a to b go through `change`. */
  async function changed(change: (bytes: Uint8Array, frame: number) => Uint8Array | null) {
    const room = await new Room().open()
    const here = await room.dial()
    let frame = 0
    room.pipes.change = ({ from, bytes }) => {
      if (from !== 'a') return bytes
      frame += 1
      return change(bytes, frame)
    }
    return { room, here }
  }

  test('every changed bit closes the channel, and nothing comes out (K02)', async () => {
    for (let at = 0; at < 4 + 5 + 16; at += 1) {
      const { room, here } = await changed((bytes) => {
        bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8))
        return bytes
      })
      const before = room.wire('b').length
      here.send(5, text('hello'))
      // A longer length may wait for more bytes: the next frame gives them.
      here.send(5, new Uint8Array(40_000))
      here.send(5, new Uint8Array(40_000))
      expect({ at, got: room.gotB.length, closed: room.closedB.length }).toEqual({
        at,
        got: 0,
        closed: 1,
      })
      expect(room.wire('b').length).toBe(before)
    }
  })

  test('a frame that is left out, sent twice or held back closes the channel', async () => {
    const drop = await changed((bytes, frame) => (frame === 1 ? null : bytes))
    drop.here.send(5, text('lost'))
    drop.here.send(5, text('found out'))
    expect([drop.room.gotB.length, drop.room.closedB.length]).toEqual([0, 1])
    const twice = await changed((bytes) => Uint8Array.of(...bytes, ...bytes))
    twice.here.send(5, text('once'))
    expect([twice.room.gotB.length, twice.room.closedB.length]).toEqual([1, 1])
    expect(twice.room.observer.count('link_garbled_total')).toBe(1)
  })

  test('a length that no frame has closes at once, and nothing is kept for it (K02)', async () => {
    for (const length of [0, 15, 65_533, 2 ** 24 - 1]) {
      const { room, here } = await changed((bytes) => {
        bytes.set([length >> 16, (length >> 8) & 255, length & 255])
        return bytes
      })
      here.send(5, text('hello'))
      expect([room.gotB.length, room.closedB.length]).toEqual([0, 1])
    }
  })

  test('captured frames open nothing: on another channel, after a restart, at another node (K01)', async () => {
    const room = await new Room().open()
    const here = await room.dial()
    here.send(5, text('captured'))
    const captured = room.wire('a')
    const last = captured.at(-1) ?? text('')
    // In the place of the same frame of the next channel between the same two.
    const next = await room.dial()
    room.pipes.change = ({ from, bytes }) => (from === 'a' ? last : bytes)
    next.send(5, text('captured'))
    expect(room.closedB).toEqual(['a frame that does not open'])
    room.pipes.change = ({ bytes }) => bytes
    const before = room.arrived.length
    // Another run of the node, which remembers nothing; then a node with another key.
    for (const own of [room.b, newExchangePair(room.random)]) {
      room.gate = room.newGate({ own })
      const stranger = room.pipes.stranger('x', AT)
      await stranger.opened
      for (const bytes of captured) stranger.write(bytes)
      expect(stranger.closed()).toBe('closed by the other side')
    }
    expect(room.arrived.length).toBe(before)
    expect(room.gotB.length).toBe(1)
  })

  /** A member gone bad: it has the key and seals what it likes. */
  function forged() {
    const clock = new ManualClock()
    const observer = new Observer(clock, () => {})
    const key = new SeededRandom(8).bytes(32)
    const got: Got[] = []
    const closed: string[] = []
    const inbox = new Inbox()
    const stream = { remote: AT, write: () => true, end: () => {}, terminate: () => {} }
    const channel = new SecureChannel(
      stream,
      inbox,
      { send: key, receive: key, hash: key, peer: key },
      { peer: key, protocol: 1, greeting: key },
      { parallelCrypto: false, confirmed: () => {} },
      { clock, observer, random: new SeededRandom(1) },
    )
    channel.start({
      message: (type, body) => got.push({ type, body }),
      closed: (why) => closed.push(why),
    })
    let count = 0
    const frame = (type: number, body: Uint8Array): void => {
      const length = body.length + 16
      const head = Uint8Array.of(length >> 16, (length >> 8) & 255, length & 255, type)
      const sealed = seal(key, nonceOf(count), head, body)
      count += 1
      channel.received(Uint8Array.of(...head, ...sealed))
    }
    return { got, closed, frame }
  }
  const [MORE, BULK, FULL] = [0x80, 0x40, new Uint8Array(65_516)]

  test('a member that sends what no honest one does is cut off', () => {
    const early = forged()
    early.frame(5, text('before the handshake was confirmed'))
    expect([early.got.length, early.closed.length]).toEqual([0, 1])

    const short = forged()
    short.frame(0, Uint8Array.of(0))
    short.frame(5 | MORE, text('a short piece'))
    expect([short.got.length, short.closed.length]).toEqual([0, 1])

    const endless = forged()
    endless.frame(0, Uint8Array.of(0))
    const whole = Math.floor(MESSAGE_BYTES_MAX / FULL.length)
    for (let count = 0; count < whole; count += 1) endless.frame(5 | MORE, FULL)
    expect(endless.closed).toEqual([])
    endless.frame(5 | MORE, FULL)
    expect(endless.closed).toEqual(['a message beyond its bound'])

    const nested = forged()
    nested.frame(0, Uint8Array.of(0))
    nested.frame(5 | MORE, FULL)
    nested.frame(6, text('another one inside'))
    expect(nested.closed).toEqual(['a message inside another one'])
  })

  test('a message of either kind may come between the pieces of one of the other', () => {
    const { frame, got, closed } = forged()
    frame(0, Uint8Array.of(0))
    frame(11 | MORE | BULK, FULL)
    frame(2, text('beat'))
    frame(11 | BULK, text('end'))
    frame(63, text('a type of a later version'))
    expect(got.map(({ type, body }) => [type, body.length])).toEqual([
      [2, 4],
      [11, FULL.length + 3],
      [63, 25],
    ])
    expect(closed).toEqual([])
  })

  test('what would break the bounds is not even sealed', async () => {
    const here = await (await new Room().open()).dial()
    expect(() => here.send(5, new Uint8Array(MESSAGE_BYTES_MAX + 1))).toThrow('bound')
    expect(() => here.send(0, text(''))).toThrow('type')
    expect(() => here.send(64, text(''))).toThrow('type')
  })
})

describe('the gate', () => {
  const GARBAGE = {
    'an HTTP request': text('GET / HTTP/1.1\r\nHost: mx1.example.com\r\n\r\n'),
    'a TLS hello': Uint8Array.of(0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, ...new Uint8Array(500)),
    'an SMTP client': text('EHLO mx2.example.com\r\n'),
    'an endless line': new Uint8Array(1_000_000).fill(0x41),
    'our magic and noise': Uint8Array.of(0x50, 0x53, 0x54, 0x31, ...new Uint8Array(400)),
    'our magic, a purpose of nobody': Uint8Array.of(0x50, 0x53, 0x54, 0x31, 9, 1, 1),
  }

  test.each(Object.entries(GARBAGE))('%s is hung up on without a word (K19)', async (_, bytes) => {
    const room = await new Room().open()
    const stranger = room.pipes.stranger('x', AT)
    await stranger.opened
    stranger.write(bytes)
    expect(stranger.got().length).toBe(0)
    expect(stranger.closed()).toBe('closed by the other side')
    expect(room.refusals()).toEqual(['stranger'])
    expect(room.gate.halfOpen).toBe(0)
  })

  test('1,000 strangers cost a place for each of the last 256, and nobody a handshake (K19)', async () => {
    const room = await new Room().open()
    const strangers = []
    for (let count = 0; count < 1_000; count += 1) {
      const stranger = room.pipes.stranger(`x${count}`, AT)
      await stranger.opened
      stranger.write(Uint8Array.of(0x50))
      strangers.push(stranger)
    }
    expect(room.gate.halfOpen).toBe(256)
    expect(strangers.slice(-256).every((one) => one.closed() === null)).toBe(true)
    // Who belongs here comes in all the same.
    const here = await room.dial()
    expect(here.send(5, text('hello'))).toBe(true)
    expect(room.gotB.length).toBe(1)
    await room.pass(5_000)
    expect(room.gate.halfOpen).toBe(0)
    expect(new Set(room.refusals())).toEqual(new Set(['crowd', 'silent']))
    expect(strangers.every((one) => one.got().length === 0)).toBe(true)
  })

  test('who knows the key is not displaced by strangers', async () => {
    const room = await new Room().open()
    let pieces = 0
    room.pipes.change = ({ from, bytes }) => {
      if (from !== 'a') return bytes
      pieces += 1
      return pieces === 1 ? bytes : null
    }
    await room.dial()
    for (let count = 0; count < 300; count += 1) await room.pipes.stranger('x', AT).opened
    expect(room.closedA).toEqual([])
    await room.pass(5_000)
    expect(room.closedA).toEqual(['closed by the other side'])
  })

  test('nobody may go on before he is answered', async () => {
    const room = await new Room().open()
    await room.dial()
    const [first = text('')] = room.wire('a')
    const stranger = room.pipes.stranger('x', AT)
    await stranger.opened
    stranger.write(Uint8Array.of(...first, 0))
    expect(stranger.got().length).toBe(0)
    expect(room.refusals()).toEqual(['stranger'])
  })

  test('one address gets 20 handshakes a second, and more later', async () => {
    const room = await new Room().open()
    const results: boolean[] = []
    const dials = async (count: number): Promise<number> => {
      results.length = 0
      for (let index = 0; index < count; index += 1) {
        results.push(
          await room.dial().then(
            () => true,
            () => false,
          ),
        )
      }
      return results.filter((ok) => ok).length
    }
    expect(await dials(50)).toBe(20)
    expect(room.refusals().every((why) => why === 'rate')).toBe(true)
    room.clock.advance(1_000)
    expect(await dials(50)).toBe(20)
    room.clock.advance(100)
    expect(await dials(50)).toBe(2)
    // Another address has its own.
    expect(await room.dial({}, 'c').then(() => true)).toBe(true)
  })

  test('who has another key, another cluster or a changed first message gets nothing', async () => {
    const room = await new Room().open()
    const other = newExchangePair(room.random)
    expect((await room.failed({ peer: other.public })).failure).toBe('hungUp')
    expect((await room.failed({ clusterId: 'ffffffffffffffff' })).failure).toBe('hungUp')
    expect(room.refusals()).toEqual(['stranger', 'handshake'])
    const length = 4 + 3 + 16 + 120
    for (let at = 0; at < length; at += 1) {
      room.pipes.change = ({ from, bytes }) => {
        if (from === 'a') bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8))
        return bytes
      }
      const failing = room.failed()
      await settled()
      room.clock.advance(5_000)
      expect(['hungUp', 'silent']).toContain((await failing).failure)
    }
    expect(room.arrived).toEqual([])
    expect(room.wire('b')).toEqual([])
  })

  test('a changed answer is the answer of somebody else', async () => {
    const room = await new Room().open()
    for (let at = 0; at < 76; at += 1) {
      room.clock.advance(1_000)
      room.pipes.change = ({ from, bytes }) => {
        if (from === 'b') bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8))
        return bytes
      }
      expect((await room.failed()).failure).toBe('wrongKey')
    }
    expect(room.arrived).toEqual([])
  })

  test('a man in the middle with a key of his own learns nothing and gives nothing', async () => {
    const room = await new Room().open()
    const middle = newExchangePair(room.random)
    // He takes the calls for b, and would call b himself.
    const his = room.newGate({ own: middle })
    await room.pipes.at('m').listen({ host: 'm', port: 1 }, (stream) => his.accept(stream))
    room.pipes.route = (from, to) => (from === 'a' && to === 'b:7900' ? 'm:1' : to)
    expect((await room.failed()).failure).toBe('hungUp')
    expect(room.arrived).toEqual([])
    expect(room.wire('b')).toEqual([])
  })

  test('a repeated first message opens nothing, whatever comes behind it (K01)', async () => {
    const room = await new Room().open()
    const here = await room.dial()
    here.send(5, text('hello'))
    const captured = room.wire('a')
    const replay = room.pipes.stranger('x', AT)
    await replay.opened
    for (const bytes of captured) replay.write(bytes)
    expect(room.arrived.length).toBe(1)
    expect(room.gotB.length).toBe(1)
    expect(replay.closed()).toBe('closed by the other side')
    const silent = room.pipes.stranger('x', AT)
    await silent.opened
    silent.write(captured[0] ?? text(''))
    expect(room.gate.halfOpen).toBe(1)
    await room.pass(5_000)
    expect([room.arrived.length, room.gate.halfOpen]).toEqual([1, 0])
    expect(silent.closed()).toBe('closed by the other side')
    expect(room.closedB).toEqual([])
  })

  test('a member that is refused hears why', async () => {
    const room = new Room({ greet: () => ({ greeting: text(''), refusal: 'evicted' }) })
    const error = await (await room.open()).failed()
    expect([error.failure, error.refusal]).toEqual(['refused', 'evicted'])
    expect(room.arrived).toEqual([])
  })

  test('versions without a common protocol say so, others take the highest (K18)', async () => {
    const room = await new Room({ protocol: { min: 2, max: 3 } }).open()
    const error = await room.failed({ protocol: { min: 1, max: 1 } })
    expect([error.refusal, error.protocol]).toEqual(['version', { min: 2, max: 3 }])
    const newer = await room.failed({ protocol: { min: 4, max: 9 } })
    expect(newer.refusal).toBe('version')
    expect((await room.dial({ protocol: { min: 1, max: 2 } })).protocol).toBe(2)
    expect((await room.dial({ protocol: { min: 3, max: 5 } })).protocol).toBe(3)
  })

  test('who lowers the offered protocol and puts the mac right breaks the handshake', async () => {
    const room = await new Room({ protocol: { min: 1, max: 3 } }).open()
    const key = sha256(text('postern/1 gate'), room.b.public)
    room.pipes.change = ({ from, bytes }) => {
      if (from !== 'a') return bytes
      bytes[6] = 1
      const [clear, first] = [bytes.subarray(0, 7), bytes.subarray(7 + 16)]
      bytes.set(hmac(key, clear, first).subarray(0, 16), 7)
      return bytes
    }
    expect((await room.failed({ protocol: { min: 1, max: 3 } })).failure).toBe('hungUp')
    expect(room.refusals()).toEqual(['handshake'])
  })

  test('a listener that accepts and never answers is given up after 5 s', async () => {
    const room = new Room()
    await room.pipes.at('b').listen(AT, () => ({
      received: () => {},
      drained: () => {},
      closed: () => {},
    }))
    const failing = room.failed()
    await room.pass(5_000)
    expect((await failing).failure).toBe('silent')
  })
})

describe('joins', () => {
  const tokenId = text('token1')

  function joinRoom() {
    const psk = new SeededRandom(9).bytes(32)
    const failed: string[] = []
    const joined: string[] = []
    const onJoin: JoinGate = {
      pskOf: (id) => (Buffer.compare(id, tokenId) === 0 ? psk : null),
      failed: (id) => failed.push(new TextDecoder().decode(id)),
      opened: (channel, id, joiner) => {
        joined.push(`${new TextDecoder().decode(id)} ${joiner.toHex()}`)
        room.take(channel)
      },
    }
    const room = new Room({ onJoin, greet: () => null })
    return { room, psk, failed, joined }
  }

  test('who has the token comes in, with the key that it will keep', async () => {
    const { room, psk, joined } = joinRoom()
    await room.open()
    const here = await room.dial({ purpose: { pattern: 'IKpsk2', tokenId, psk } })
    here.send(5, text('let me in'))
    expect(joined).toEqual([`token1 ${room.a.public.toHex()}`])
    expect(room.gotB.length).toBe(1)
  })

  test('another token, another secret or another cluster: nothing, and only the last counts', async () => {
    const { room, psk, failed, joined } = joinRoom()
    await room.open()
    const wrong = psk.slice().reverse()
    const unknown = text('token2')
    await room.failed({ purpose: { pattern: 'IKpsk2', tokenId: unknown, psk } })
    await room.failed({ purpose: { pattern: 'IKpsk2', tokenId, psk: wrong } })
    expect(failed).toEqual([])
    await room.failed({ purpose: { pattern: 'IKpsk2', tokenId, psk }, clusterId: '0'.repeat(16) })
    expect(failed).toEqual(['token1'])
    expect(joined).toEqual([])
    expect(room.wire('b')).toEqual([])
  })
})

describe('anything at all', () => {
  // The soak runs more: FUZZ=100000.
  const COUNT = Number(process.env['FUZZ'] ?? 20_000)

  test(`${COUNT} made-up handshakes and frames end without a crash or an answer`, async () => {
    const room = await new Room().open()
    const dice = new SeededRandom(4)
    const here = await room.dial()
    here.send(5, text('something real'))
    const real = room.wire('a')
    const first = real[0] ?? text('')
    const saidBefore = room.wire('b').length
    for (let count = 0; count < COUNT / 2; count += 1) {
      const stranger = room.pipes.stranger('x', AT)
      await stranger.opened
      let bytes = dice.bytes(dice.below(300))
      const kind = dice.below(4)
      if (kind === 1) bytes = Uint8Array.of(...first.slice(0, dice.below(first.length)), ...bytes)
      if (kind === 2) {
        bytes = first.slice()
        for (let bits = 0; bits <= dice.below(4); bits += 1) {
          const at = dice.below(bytes.length)
          bytes[at] = (bytes[at] ?? 0) ^ (1 + dice.below(255))
        }
      }
      if (kind === 3) bytes.set(first.slice(0, Math.min(bytes.length, 4 + dice.below(30))))
      // A change and its undoing would be the captured message itself.
      if (Buffer.compare(bytes.slice(0, first.length), first) !== 0) stranger.write(bytes)
      stranger.hangUp()
    }
    expect(room.wire('b').length).toBe(saidBefore)
    expect(room.gate.halfOpen).toBe(0)
    let channel = here
    const heard = room.gotB.length
    const answered = room.wire('b').length
    for (let count = 0; count < COUNT / 2; count += 1) {
      if (room.closedA.length > 0) {
        room.closedA.length = 0
        room.pipes.change = ({ bytes }) => bytes
        room.clock.advance(60)
        channel = await room.dial()
      }
      const made = dice.bytes(dice.below(200))
      if (dice.below(2) === 0)
        made.set([0, 0, dice.below(256), dice.below(256)].slice(0, made.length))
      room.pipes.change = ({ from, bytes }) => (from === 'a' ? made : bytes)
      channel.send(5, text('x'))
    }
    expect(room.gotB.length).toBe(heard)
    const handshakes = room.arrived.length - 1
    expect(room.wire('b').length).toBe(answered + handshakes)
  }, 120_000)
})
