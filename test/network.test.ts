/** Real sockets on this machine: what Bun does is what the cluster builds on. */
import { afterEach, describe, expect, test } from 'bun:test'
import { createSocket } from 'node:dgram'
import { SystemClock } from '../src/base/clock.ts'
import { AssertionError, RefusalError } from '../src/base/errors.ts'
import type { PeerAddress, Stream, StreamHandlers } from '../src/cluster/contract.ts'
import { SystemNetwork } from '../src/cluster/network.ts'

const network = new SystemNetwork(new SystemClock())
const HERE: PeerAddress = { host: '127.0.0.1', port: 0 }
const open: { close(): void }[] = []

afterEach(() => {
  for (const one of open.splice(0)) one.close()
})

/** Notes what happens to a stream; each thing can be waited for. */
class Ear implements StreamHandlers {
  stream: Stream | null = null
  bytes = 0
  /** Of all octets: what was changed on the way shows. */
  sum = 0
  readonly pieces: Uint8Array[] = []
  why: string | null = null
  drains = 0
  #waiting: (() => void)[] = []

  readonly open = (stream: Stream): StreamHandlers => {
    this.stream = stream
    this.#tell()
    return this
  }

  received(bytes: Uint8Array): void {
    expect(bytes.constructor).toBe(Uint8Array)
    this.bytes += bytes.length
    for (const octet of bytes) this.sum += octet
    if (bytes.length < 1_000) this.pieces.push(bytes.slice())
    this.#tell()
  }

  drained(): void {
    this.drains += 1
    this.#tell()
  }

  closed(why: string): void {
    expect(this.why).toBeNull()
    this.why = why
    this.#tell()
  }

  get words(): string {
    return Buffer.concat(this.pieces).toString()
  }

  async until(isSo: () => boolean): Promise<void> {
    while (!isSo()) await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }

  #tell(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }
}

async function pair(): Promise<[Ear, Ear, Stream, Stream]> {
  const [here, there] = [new Ear(), new Ear()]
  const listener = await network.listen(HERE, there.open)
  open.push(listener)
  await network.dial({ host: '127.0.0.1', port: listener.port }, here.open, 5_000)
  await there.until(() => there.stream !== null)
  if (here.stream === null || there.stream === null) throw new Error('both are open')
  return [here, there, here.stream, there.stream]
}

describe('streams', () => {
  test('bytes go both ways, and each side knows the address of the other', async () => {
    const [here, there, near, far] = await pair()
    near.write(Buffer.from('question'))
    await there.until(() => there.words === 'question')
    far.write(Buffer.from('answer'))
    await here.until(() => here.words === 'answer')
    expect(far.remote.host).toBe('127.0.0.1')
    expect(near.remote.port).toBeGreaterThan(0)
  })

  test('a full network says so, takes the bytes all the same, and says when it is free', async () => {
    const [here, there, near] = await pair()
    const piece = new Uint8Array(1024 * 1024).fill(7)
    let written = 0
    let isFree = true
    while (isFree && written < 64) {
      isFree = near.write(piece)
      written += 1
    }
    expect(isFree).toBe(false)
    // What was written may change afterwards.
    piece.fill(0)
    near.write(Buffer.from('the end'))
    await there.until(() => there.bytes === written * piece.length + 7)
    expect(there.sum).toBe(
      written * piece.length * 7 + Buffer.from('the end').reduce((a, b) => a + b),
    )
    await here.until(() => here.drains > 0)
  })

  test('end closes after the last byte is out, on both sides, once', async () => {
    const [here, there, near] = await pair()
    const piece = new Uint8Array(4 * 1024 * 1024)
    near.write(piece)
    near.write(piece)
    near.end()
    near.end()
    expect(near.write(piece)).toBe(false)
    await there.until(() => there.why !== null)
    expect(there.bytes).toBe(2 * piece.length)
    await here.until(() => here.why !== null)
    near.terminate()
  })

  test('terminate closes at once; what comes later is not heard', async () => {
    const [here, there, near, far] = await pair()
    far.terminate()
    far.terminate()
    expect(there.why).toBe('closed here')
    await here.until(() => here.why !== null)
    expect(near.write(Buffer.from('x'))).toBe(false)
    near.terminate()
  })

  test('a stream that is closed in its opening has no further events', async () => {
    const ear = new Ear()
    const listener = await network.listen(HERE, (stream) => {
      stream.terminate()
      return ear
    })
    open.push(listener)
    const here = new Ear()
    await network.dial({ host: '127.0.0.1', port: listener.port }, here.open, 5_000)
    await here.until(() => here.why !== null)
    expect([ear.bytes, ear.why]).toEqual([0, null])
  })

  test('nobody listens: the dial fails with a reason and no stream', async () => {
    const ear = new Ear()
    const listener = await network.listen(HERE, ear.open)
    const { port } = listener
    listener.close()
    const dial = network.dial({ host: '127.0.0.1', port }, ear.open, 5_000)
    await expect(dial).rejects.toMatchObject({ name: 'UnreachableError', isRefused: true })
    expect(ear.stream).toBeNull()
  })

  test('an address that is none fails as one that does not answer', async () => {
    for (const host of ['256.1.1.1', 'no such host', '']) {
      const dial = network.dial({ host, port: 1 }, new Ear().open, 5_000)
      await expect(dial).rejects.toMatchObject({ name: 'UnreachableError', isRefused: false })
    }
  })

  test('a dial that nobody answers ends when its time is over', async () => {
    const timers: (() => void)[] = []
    const clock = {
      wallMs: () => 0,
      bootMs: () => 0,
      monoMs: () => 0,
      after: (_: number, run: () => void) => {
        timers.push(run)
        return { cancel: () => {} }
      },
    }
    const ear = new Ear()
    const listener = await network.listen(HERE, ear.open)
    open.push(listener)
    const here = new Ear()
    const dial = new SystemNetwork(clock).dial(
      { host: '127.0.0.1', port: listener.port },
      here.open,
      3_000,
    )
    // Its time is over before the connection stands: what comes after it is not wanted.
    for (const run of timers) run()
    await expect(dial).rejects.toThrow('no answer within 3 s')
    await ear.until(() => ear.why !== null)
    expect(here.stream).toBeNull()
  })

  test('a port that is taken is refused with the way out', async () => {
    const listener = await network.listen(HERE, new Ear().open)
    open.push(listener)
    const again = network.listen({ host: '127.0.0.1', port: listener.port }, new Ear().open)
    await expect(again).rejects.toBeInstanceOf(RefusalError)
    await expect(again).rejects.toThrow(`127.0.0.1:${listener.port}`)
  })
})

describe('datagrams', () => {
  type Got = { readonly words: string; readonly from: PeerAddress }

  async function socket(host = '127.0.0.1') {
    const got: Got[] = []
    let tell: (() => void) | null = null
    const opened = await network.datagrams({ host, port: 0 }, (bytes, from) => {
      expect(bytes.constructor).toBe(Uint8Array)
      got.push({ words: Buffer.from(bytes).toString(), from })
      tell?.()
    })
    open.push(opened)
    const until = async (isSo: () => boolean): Promise<void> => {
      while (!isSo()) {
        await new Promise<void>((resolve) => {
          tell = resolve
        })
      }
    }
    return { ...opened, got, until }
  }

  test('one is answered where it came from', async () => {
    const [a, b] = [await socket(), await socket()]
    a.send(Buffer.from('ping'), { host: '127.0.0.1', port: b.port })
    await b.until(() => b.got.length === 1)
    expect(b.got).toEqual([{ words: 'ping', from: { host: '127.0.0.1', port: a.port } }])
    b.send(Buffer.from('ack'), b.got[0]?.from ?? HERE)
    await a.until(() => a.got.length === 1)
    expect(a.got[0]?.words).toBe('ack')
  })

  test('nobody at the other end, or no way there, ends neither process nor socket', async () => {
    const [a, b, gone] = [await socket(), await socket(), await socket()]
    const { port } = gone
    gone.close()
    // Each one comes back as an ICMP error, which Bun would throw without a listener.
    for (let count = 0; count < 20; count += 1) {
      a.send(Buffer.from('to nobody'), { host: '127.0.0.1', port })
      a.send(Buffer.from('to no family'), { host: '::1', port })
      a.send(Buffer.from('to no address'), { host: 'no such host', port })
      a.send(Buffer.from('to no port'), { host: '127.0.0.1', port: 70_000 })
      await Promise.resolve()
    }
    a.send(Buffer.from('still here'), { host: '127.0.0.1', port: b.port })
    await b.until(() => b.got.length === 1)
    b.send(Buffer.from('so am I'), { host: '127.0.0.1', port: a.port })
    await a.until(() => a.got.length === 1)
    expect(a.got[0]?.words).toBe('so am I')
    gone.send(Buffer.from('after the end'), { host: '127.0.0.1', port: a.port })
  })

  test('more than 1,200 bytes are a bug of the sender', async () => {
    const [a, b] = [await socket(), await socket()]
    const to = { host: '127.0.0.1', port: b.port }
    expect(() => a.send(new Uint8Array(1_201), to)).toThrow(AssertionError)
    a.send(new Uint8Array(1_200), to)
    await b.until(() => b.got.length === 1)
    expect(b.got[0]?.words.length).toBe(1_200)
  })

  test('one socket of both families speaks with both, and shows plain addresses', async () => {
    const [both, four] = [await socket('::'), await socket()]
    four.send(Buffer.from('from four'), { host: '127.0.0.1', port: both.port })
    await both.until(() => both.got.length === 1)
    expect(both.got[0]?.from).toEqual({ host: '127.0.0.1', port: four.port })
    both.send(Buffer.from('to four'), { host: '127.0.0.1', port: four.port })
    await four.until(() => four.got.length === 1)
    expect(four.got[0]?.words).toBe('to four')
  })

  test('strangers of other programs are heard, and closed sockets are not', async () => {
    const a = await socket()
    const other = createSocket('udp4')
    other.send('hello', a.port, '127.0.0.1')
    await a.until(() => a.got.length === 1)
    a.close()
    other.send('again', a.port, '127.0.0.1')
    await new Promise<void>((resolve) => other.close(() => resolve()))
    expect(a.got.length).toBe(1)
  })

  test('a port that is taken is refused with the way out', async () => {
    const a = await socket()
    const again = network.datagrams({ host: '127.0.0.1', port: a.port }, () => {})
    await expect(again).rejects.toBeInstanceOf(RefusalError)
  })
})
