/**
 * A network without a machine: streams between named hosts, every byte seen and changeable, in
 * the order in which it was written. For tests of one link; whole clusters have their own.
 */
import { RefusalError } from '../src/base/errors.ts'
import type { Network, PeerAddress, Stream, StreamHandlers } from '../src/cluster/contract.ts'

type Piece = { readonly from: string; readonly to: string; readonly bytes: Uint8Array }

export class Pipes {
  /** Everything that anybody wrote, in order. */
  readonly seen: Piece[] = []
  /** What arrives instead; null: nothing does. */
  change: (piece: Piece) => Uint8Array | null = ({ bytes }) => bytes
  /** Who dials whom finds another one there. */
  route: (from: string, to: string) => string = (_, to) => to
  readonly #listeners = new Map<string, (stream: Stream) => StreamHandlers>()
  readonly #frozen = new Set<string>()
  readonly #silent = new Set<string>()
  readonly #ends = new Set<End>()
  #queue: (() => void)[] = []
  #isRunning = false
  #port = 40_000

  /** What a host sees of it. */
  at(host: string): Network {
    return {
      listen: async ({ port }, open) => {
        const name = `${host}:${port}`
        if (this.#listeners.has(name)) throw new RefusalError('conflict', 'peer', 'In use.', '')
        this.#listeners.set(name, open)
        return { port, close: () => this.#listeners.delete(name) }
      },
      dial: (to, open, _timeoutMs) =>
        new Promise((resolve, reject) => {
          this.run(() => {
            const name = `${to.host}:${to.port}`
            const listener = this.#listeners.get(this.route(host, name))
            if (this.#silent.has(to.host) || this.#silent.has(host)) return
            if (listener === undefined) return reject(new Error('connection refused'))
            this.#port += 1
            const here = new End(this, host, to)
            const there = new End(this, to.host, { host, port: this.#port })
            here.other = there
            there.other = here
            this.#ends.add(here).add(there)
            there.start(listener)
            here.start(open)
            resolve()
          })
        }),
      datagrams: () => Promise.reject(new Error('no datagrams here')),
    }
  }

  /** A stranger's connection: what it writes, and what came back. */
  stranger(host: string, to: PeerAddress) {
    const got: Uint8Array[] = []
    let closed: string | null = null
    let stream: Stream | null = null
    const opened = this.at(host).dial(
      to,
      (opening) => {
        stream = opening
        return {
          received: (bytes) => got.push(bytes.slice()),
          drained: () => {},
          closed: (why) => {
            closed = why
          },
        }
      },
      1_000,
    )
    return {
      opened,
      write: (bytes: Uint8Array) => stream?.write(bytes),
      hangUp: () => stream?.terminate(),
      got: () => new Uint8Array(Buffer.concat(got)),
      closed: () => closed,
    }
  }

  /** Nothing is delivered to a host until `thaw`: a reader that does not read. */
  freeze(host: string): void {
    this.#frozen.add(host)
  }

  thaw(host: string): void {
    this.#frozen.delete(host)
    for (const end of this.#ends) if (end.host === host) end.thawed()
  }

  isFrozen(host: string): boolean {
    return this.#frozen.has(host)
  }

  /** A host that lost its power: it never answers again, and nobody hears of it. */
  silence(host: string): void {
    this.#silent.add(host)
    for (const end of this.#ends) if (end.host === host) end.isDeaf = true
  }

  /** Closes every stream of a host: its process ended. */
  kill(host: string): void {
    for (const end of this.#ends) if (end.host === host) end.terminate()
    for (const name of this.#listeners.keys()) {
      if (name.startsWith(`${host}:`)) this.#listeners.delete(name)
    }
  }

  run(act: () => void): void {
    this.#queue.push(act)
    if (this.#isRunning) return
    this.#isRunning = true
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) next()
    this.#isRunning = false
  }
}

class End implements Stream {
  readonly host: string
  readonly remote: PeerAddress
  readonly #pipes: Pipes
  other: End | null = null
  isDeaf = false
  #handlers: StreamHandlers | null = null
  #isOver = false
  #waiting: Uint8Array[] = []
  #isEnding = false

  constructor(pipes: Pipes, host: string, remote: PeerAddress) {
    this.#pipes = pipes
    this.host = host
    this.remote = remote
  }

  start(open: (stream: Stream) => StreamHandlers): void {
    this.#handlers = open(this)
  }

  write(bytes: Uint8Array): boolean {
    if (this.#isOver || this.isDeaf) return true
    const to = this.other?.host ?? ''
    this.#pipes.seen.push({ from: this.host, to, bytes: bytes.slice() })
    const changed = this.#pipes.change({ from: this.host, to, bytes: bytes.slice() })
    if (changed !== null) this.#pipes.run(() => this.other?.take(changed))
    return !this.#pipes.isFrozen(to)
  }

  take(bytes: Uint8Array): void {
    if (this.#isOver || this.isDeaf) return
    if (this.#pipes.isFrozen(this.host)) this.#waiting.push(bytes)
    else {
      this.#handlers?.received(bytes)
      // They were lent: who kept a view of them reads nonsense from here on.
      bytes.fill(0xa5)
    }
  }

  thawed(): void {
    for (const bytes of this.#waiting.splice(0)) this.#pipes.run(() => this.take(bytes))
    this.#pipes.run(() => this.other?.drain())
  }

  drain(): void {
    if (!this.#isOver) this.#handlers?.drained()
  }

  end(): void {
    if (this.#isEnding) return
    this.#isEnding = true
    this.#pipes.run(() => this.#over('closed here'))
  }

  terminate(): void {
    this.#over('closed here')
  }

  #over(why: string): void {
    if (this.#isOver) return
    this.#isOver = true
    const { other } = this
    if (!this.isDeaf && other !== null) {
      this.#pipes.run(() => {
        if (!other.isDeaf) other.#over('closed by the other side')
      })
    }
    this.#handlers?.closed(why)
  }
}

/** Lets promises that are settled run on. */
export async function settled(): Promise<void> {
  for (let round = 0; round < 20; round += 1) await Promise.resolve()
}
