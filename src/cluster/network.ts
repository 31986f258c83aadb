/** The network of the machine: TCP and UDP of Bun behind the seam that a simulation replaces. */
import { isIPv6 } from 'node:net'
import type { Socket } from 'bun'
import type { Clock } from '../base/clock.ts'
import { assert, GatewayError, messageOf, RefusalError } from '../base/errors.ts'
import { codeOf } from '../base/files.ts'
import { giveBack } from '../base/memory.ts'
import type { Network, PeerAddress, Stream, StreamHandlers } from './contract.ts'

/** IPv6 carries 1,280 bytes everywhere (RFC 8200 section 5), 48 of them are headers; then rounded. */
export const DATAGRAM_BYTES_MAX = 1_200

/** Nobody answers there, or says no. */
export class UnreachableError extends GatewayError {
  override name = 'UnreachableError'
  /** The machine answered, and no process listens there: it is no silence. */
  readonly isRefused: boolean

  constructor(message: string, options: { isRefused: boolean; cause?: unknown }) {
    super(message, { remedy: 'retry', cause: options.cause })
    this.isRefused = options.isRefused
  }
}

export class SystemNetwork implements Network {
  readonly #clock: Clock

  constructor(clock: Clock) {
    this.#clock = clock
  }

  async listen(
    { host, port }: PeerAddress,
    open: (stream: Stream) => StreamHandlers,
  ): Promise<{ readonly port: number; close(): void }> {
    try {
      const listener = Bun.listen<BunStream | undefined>({
        hostname: host,
        port,
        socket: {
          open: (socket) => {
            const stream = new BunStream(socket, remoteOf(socket))
            socket.data = stream
            stream.start(open)
          },
          ...EVENTS_OF_SOCKET,
        },
      })
      return { port: listener.port, close: () => listener.stop(false) }
    } catch (error) {
      throw cannotBind('TCP', { host, port }, error)
    }
  }

  dial(
    { host, port }: PeerAddress,
    open: (stream: Stream) => StreamHandlers,
    timeoutMs: number,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      let isOver = false
      const over = (act: () => void): void => {
        if (isOver) return
        isOver = true
        timer.cancel()
        act()
      }
      const fail = (error: unknown): void =>
        over(() => {
          const isRefused = codeOf(error) === 'ECONNREFUSED'
          reject(new UnreachableError(messageOf(error), { isRefused, cause: error }))
        })
      const timer = this.#clock.after(timeoutMs, () =>
        fail(new Error(`no answer within ${timeoutMs / 1000} s`)),
      )
      const connect = async (): Promise<void> => {
        await Bun.connect<BunStream | undefined>({
          hostname: host,
          port,
          socket: {
            open: (socket) => {
              // It came after its time: nobody waits for it.
              if (isOver) return socket.terminate()
              const stream = new BunStream(socket, { host, port })
              socket.data = stream
              over(() => {
                stream.start(open)
                resolve()
              })
            },
            connectError: (_, error) => fail(error),
            ...EVENTS_OF_SOCKET,
          },
        })
      }
      // An address that is none is thrown at once, the rest comes later.
      connect().catch(fail)
    })
  }

  async datagrams(
    { host, port }: PeerAddress,
    received: (bytes: Uint8Array, from: PeerAddress) => void,
  ): Promise<{
    readonly port: number
    send(bytes: Uint8Array, to: PeerAddress): void
    close(): void
  }> {
    try {
      let isClosed = false
      const socket = await Bun.udpSocket({
        hostname: host,
        port,
        socket: {
          data: (_, bytes, fromPort, fromHost) => {
            if (!isClosed) received(new Uint8Array(bytes), addressOf(fromHost, fromPort))
          },
          // Without it one ICMP "port unreachable" ends the process.
          error: () => {},
        },
      })
      return {
        port: socket.port,
        send: (bytes, to) => {
          assert(bytes.length <= DATAGRAM_BYTES_MAX, 'a datagram is never cut into fragments')
          if (isClosed) return
          try {
            socket.send(bytes, to.port, to.host)
          } catch {
            // No way there at the moment: the same as a lost datagram.
          }
        },
        close: () => {
          isClosed = true
          socket.close()
        },
      }
    } catch (error) {
      throw cannotBind('UDP', { host, port }, error)
    }
  }
}

/** What happens to a socket after it is open. One that fails before has no stream. */
const EVENTS_OF_SOCKET = {
  data: (socket: Socket<BunStream | undefined>, bytes: Buffer) => socket.data?.took(bytes),
  drain: (socket: Socket<BunStream | undefined>) => socket.data?.drain(),
  end: (socket: Socket<BunStream | undefined>) => socket.data?.over('closed by the other side'),
  close: (socket: Socket<BunStream | undefined>) => socket.data?.over('closed'),
  error: (socket: Socket<BunStream | undefined>, error: Error) => {
    if (socket.data === undefined) socket.terminate()
    else socket.data.over(messageOf(error))
  },
}

class BunStream implements Stream {
  readonly remote: PeerAddress
  readonly #socket: Socket<BunStream | undefined>
  #handlers: StreamHandlers | null = null
  /** What the kernel did not take yet, in order. */
  #unsent: Uint8Array[] = []
  #isEnding = false
  #isOver = false

  constructor(socket: Socket<BunStream | undefined>, remote: PeerAddress) {
    this.#socket = socket
    this.remote = remote
  }

  start(open: (stream: Stream) => StreamHandlers): void {
    // Small frames must not wait for the answer to the one before.
    this.#socket.setNoDelay(true)
    this.#handlers = open(this)
  }

  write(bytes: Uint8Array): boolean {
    if (this.#isOver || this.#isEnding) return false
    if (this.#unsent.length > 0) {
      this.#unsent.push(bytes.slice())
      return false
    }
    // Less than nothing means that the socket is closed already; `close` comes.
    const written = Math.max(0, this.#socket.write(bytes))
    if (written === bytes.length) return true
    this.#unsent.push(bytes.slice(written))
    return false
  }

  end(): void {
    if (this.#isOver || this.#isEnding) return
    this.#isEnding = true
    if (this.#unsent.length === 0) this.#socket.end()
  }

  terminate(): void {
    this.over('closed here')
  }

  took(bytes: Uint8Array): void {
    if (this.#isOver) return
    this.#handlers?.received(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length))
    giveBack(bytes)
  }

  drain(): void {
    for (;;) {
      const [first] = this.#unsent
      if (first === undefined) break
      const written = Math.max(0, this.#socket.write(first))
      if (written < first.length) {
        this.#unsent[0] = first.subarray(written)
        return
      }
      this.#unsent.shift()
    }
    if (this.#isEnding) this.#socket.end()
    else if (!this.#isOver) this.#handlers?.drained()
  }

  over(why: string): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#unsent = []
    this.#socket.terminate()
    this.#handlers?.closed(why)
  }
}

function remoteOf(socket: Socket<BunStream | undefined>): PeerAddress {
  return addressOf(socket.remoteAddress, socket.remotePort)
}

/** An IPv4 address as such also where the socket is of both families; without a zone. */
function addressOf(host: string, port: number): PeerAddress {
  const [bare = ''] = host.toLowerCase().split('%')
  return { host: bare.startsWith('::ffff:') && bare.includes('.') ? bare.slice(7) : bare, port }
}

function cannotBind(plane: string, { host, port }: PeerAddress, cause: unknown): RefusalError {
  const at = isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`
  return new RefusalError(
    'conflict',
    'peer',
    `Cannot listen for peers on ${at} (${plane}): ${messageOf(cause)}.`,
    `Stop what uses port ${port}, or choose another one with --peer HOST:PORT.`,
  )
}
