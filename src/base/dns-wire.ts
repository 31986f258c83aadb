/** One question to one name server: a datagram from a port of its own, or a TCP connection. */
import type { Socket } from 'bun'
import { messageOf } from './errors.ts'

export type NameServer = { readonly host: string; readonly port: number }

export type WireEnds = {
  /** As often as something comes, until it is closed. TCP: one whole message. */
  readonly heard: (bytes: Uint8Array) => void
  /** Once: nothing more will come. */
  readonly failed: (cause: string) => void
}

export interface DnsWire {
  /** Gives what closes it; twice is harmless, and nothing is called after it. */
  datagram(server: NameServer, question: Uint8Array, ends: WireEnds): () => void
  stream(server: NameServer, question: Uint8Array, ends: WireEnds): () => void
}

/**
 * The kernel chooses a port by chance for each question, and gives only what this server sends to
 * it (RFC 5452 section 9.2).
 */
export class SystemDnsWire implements DnsWire {
  datagram({ host, port }: NameServer, question: Uint8Array, ends: WireEnds): () => void {
    let isOver = false
    let close: (() => void) | null = null
    const over = (): void => {
      isOver = true
      close?.()
      close = null
    }
    const fail = (error: unknown): void => {
      if (isOver) return
      over()
      ends.failed(messageOf(error))
    }
    // A network that cannot be reached is thrown at once, not a rejection: both end in `fail`.
    const ask = async (): Promise<void> => {
      const socket = await Bun.udpSocket({
        connect: { hostname: host, port },
        ...(host.includes(':') ? { hostname: '::' } : {}),
        socket: {
          data: (_socket, bytes) => {
            if (!isOver) ends.heard(bytes)
          },
          // A port where nobody listens: ICMP says so at once.
          error: (error: unknown) => fail(error),
        },
      })
      if (isOver) return socket.close()
      close = () => socket.close()
      socket.send(question)
    }
    ask().catch(fail)
    return over
  }

  stream({ host, port }: NameServer, question: Uint8Array, ends: WireEnds): () => void {
    let isOver = false
    let opened: Socket<undefined> | null = null
    let got: Buffer = Buffer.alloc(0)
    const over = (): void => {
      isOver = true
      opened?.terminate()
      opened = null
    }
    const fail = (error: unknown): void => {
      if (isOver) return
      over()
      ends.failed(messageOf(error))
    }
    // RFC 1035 section 4.2.2: two octets of length before each message.
    const framed = Buffer.alloc(question.length + 2)
    framed.writeUInt16BE(question.length, 0)
    framed.set(question, 2)
    const ask = async (): Promise<unknown> =>
      await Bun.connect({
        hostname: host,
        port,
        socket: {
          open: (socket) => {
            opened = socket
            if (isOver) socket.terminate()
            else socket.write(framed)
          },
          data: (_socket, chunk) => {
            if (isOver) return
            got = Buffer.concat([got, chunk])
            const length = got.length < 2 ? Number.POSITIVE_INFINITY : got.readUInt16BE(0)
            if (got.length < length + 2) return
            const message = got.subarray(2, length + 2)
            over()
            ends.heard(message)
          },
          close: () => fail('the connection was closed'),
          error: (_socket, error) => fail(error),
          connectError: (_socket, error) => fail(error),
        },
      })
    ask().catch(fail)
    return over
  }
}
