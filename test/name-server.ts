/** A name server of the test's own, by UDP and TCP, and a wire without sockets that a clock drives. */
import { createSocket } from 'node:dgram'
import { createServer, type Socket } from 'node:net'
import { type Answer, decode, encode, type Packet } from 'dns-packet'
import type { Clock } from '../src/base/clock.ts'
import type { DnsWire, NameServer, WireEnds } from '../src/base/dns-wire.ts'
import type { DnsType } from '../src/base/names.ts'
import { freePort } from './ports.ts'

export type Reply = {
  readonly answers?: readonly Answer[]
  readonly authorities?: readonly Answer[]
  /** 0: no error. */
  readonly code?: number
  readonly truncated?: boolean
  /** What is answered to, when it is something else. */
  readonly about?: string
  readonly idOff?: number
}

/** What a server says to `TYPE name`; null: nothing. */
export type Zone = (type: DnsType, name: string, by: 'udp' | 'tcp') => Reply | null

export function records(
  type: DnsType,
  name: string,
  data: readonly unknown[],
  ttl = 60,
): readonly Answer[] {
  return data.map((each) => ({ type, name, ttl, class: 'IN', data: each }) as Answer)
}

/** `A name` or `TXT name` to records; what is not there does not exist. */
export function zoneOf(names: Readonly<Record<string, readonly unknown[]>>): Zone {
  return (type, name) => {
    const data = names[`${type} ${name}`]
    return data === undefined ? { code: 3 } : { answers: records(type, name, data) }
  }
}

export function answerBytes(question: Uint8Array, zone: Zone, by: 'udp' | 'tcp'): Buffer | null {
  const asked = decode(Buffer.from(question))
  const first = asked.questions?.[0]
  if (first === undefined) return null
  const reply = zone(first.type as DnsType, first.name.toLowerCase(), by)
  if (reply === null) return null
  const packet: Packet = {
    type: 'response',
    id: ((asked.id ?? 0) + (reply.idOff ?? 0)) & 0xffff,
    flags: 0x0180 | (reply.code ?? 0) | (reply.truncated === true ? 0x0200 : 0),
    questions: reply.about === undefined ? [first] : [{ ...first, name: reply.about }],
    answers: [...(reply.answers ?? [])],
    authorities: [...(reply.authorities ?? [])],
  }
  return encode(packet)
}

export class TestNameServer {
  zone: Zone
  questions = 0
  readonly #udp = createSocket('udp4')
  readonly #tcp
  readonly #sockets = new Set<Socket>()

  private constructor(zone: Zone) {
    this.zone = zone
    this.#udp.on('message', (question, { port, address }) => {
      this.questions += 1
      const bytes = answerBytes(question, this.zone, 'udp')
      if (bytes !== null) this.#udp.send(bytes, port, address)
    })
    this.#tcp = createServer((socket) => {
      this.#sockets.add(socket)
      socket.on('error', () => {})
      socket.on('data', (chunk) => {
        const bytes = answerBytes(Buffer.from(chunk).subarray(2), this.zone, 'tcp')
        if (bytes === null) return
        const framed = Buffer.alloc(bytes.length + 2)
        framed.writeUInt16BE(bytes.length, 0)
        bytes.copy(framed, 2)
        // In two pieces: TCP knows no messages.
        socket.write(framed.subarray(0, 3))
        socket.write(framed.subarray(3))
      })
    })
  }

  static async start(zone: Zone): Promise<TestNameServer> {
    const server = new TestNameServer(zone)
    const port = freePort()
    await new Promise<void>((resolve) => server.#udp.bind(port, '127.0.0.1', resolve))
    await new Promise<void>((resolve) => server.#tcp.listen(port, '127.0.0.1', resolve))
    return server
  }

  get at(): NameServer {
    return { host: '127.0.0.1', port: this.#udp.address().port }
  }

  stop(): void {
    this.#udp.close()
    for (const socket of this.#sockets) socket.destroy()
    this.#tcp.close()
  }
}

/** Servers by address; each answers after its delay by the clock. */
export class ClockWire implements DnsWire {
  readonly zones = new Map<string, { zone: Zone; delayMs: number }>()
  /** `HOST by`, in order. */
  readonly asked: string[] = []
  open = 0
  readonly #clock: Clock

  constructor(clock: Clock) {
    this.#clock = clock
  }

  set(host: string, zone: Zone, delayMs = 10): void {
    this.zones.set(host, { zone, delayMs })
  }

  datagram(server: NameServer, question: Uint8Array, ends: WireEnds): () => void {
    return this.#exchange(server, question, ends, 'udp')
  }

  stream(server: NameServer, question: Uint8Array, ends: WireEnds): () => void {
    return this.#exchange(server, question, ends, 'tcp')
  }

  #exchange(
    { host }: NameServer,
    question: Uint8Array,
    ends: WireEnds,
    by: 'udp' | 'tcp',
  ): () => void {
    this.asked.push(`${host} ${by}`)
    this.open += 1
    const place = this.zones.get(host)
    const bytes = place === undefined ? null : answerBytes(question, place.zone, by)
    const timer = this.#clock.after(place?.delayMs ?? 10, () => {
      if (place === undefined) ends.failed('refused')
      else if (bytes !== null) ends.heard(bytes)
    })
    let isOpen = true
    return () => {
      if (isOpen) this.open -= 1
      isOpen = false
      timer.cancel()
    }
  }
}
