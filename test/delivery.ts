/** What the tests of delivery share: a deliverer, hops, messages, and how outcomes are read. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Clock, SystemClock } from '../src/base/clock.ts'
import { NoSuchNameError, type Resolver } from '../src/base/dns.ts'
import type { MessageId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import { createDeliverer } from '../src/mail/deliver/attempt.ts'
import type { Deliverer, Delivery } from '../src/mail/deliver/contract.ts'
import type { Body } from '../src/message/body.ts'
import type { Outcome } from '../src/message/outcome.ts'
import { Hop, type HopOptions, type Script } from './hop.ts'

export const SETTINGS = { hostname: 'gate.example', timeoutMs: 60_000 }
export const TEXT = 'Subject: hello\r\n\r\nA line.\r\n'
export const PREPEND = 'Received: from a by b\r\n'

const noNames: Resolver = {
  addresses: () => Promise.reject(new NoSuchNameError('none', { remedy: 'give-up' })),
  mx: () => Promise.reject(new NoSuchNameError('none', { remedy: 'give-up' })),
}

/** Starts things and ends them all again. */
export class Stage {
  #ends: (() => void)[] = []

  end(): void {
    for (const end of this.#ends.splice(0)) end()
  }

  hop(options: HopOptions = {}): Hop {
    const hop = new Hop(options)
    this.#ends.push(() => hop.stop())
    return hop
  }

  scripted(script: Script, options: HopOptions = {}): Hop {
    return this.hop({ ...options, script })
  }

  deliverer(options: { clock?: Clock; resolver?: Resolver; own?: string[] } = {}): Deliverer {
    const clock = options.clock ?? new SystemClock()
    const deliverer = createDeliverer({
      clock,
      observer: new Observer(clock, () => {}),
      random: new SeededRandom(1),
      resolver: options.resolver ?? noNames,
      ownAddresses: options.own ?? [],
    })
    this.#ends.push(() => void deliverer.close())
    return deliverer
  }

  /** One attempt at `hop` over connections of its own. */
  async deliverTo(hop: Hop, delivery: Delivery): Promise<readonly Outcome[]> {
    return await this.deliverer().deliver(delivery, hop.route, SETTINGS)
  }

  /** The bytes in files, cut at `cuts`; each piece lies behind others in its file. */
  extents(bytes: Buffer, ...cuts: number[]): Body & { readonly kind: 'extents' } {
    const folder = mkdtempSync(join(tmpdir(), 'deliver-'))
    this.#ends.push(() => rmSync(folder, { recursive: true }))
    const edges = [0, ...cuts, bytes.length]
    const extents = edges.slice(1).map((end, at) => {
      const start = edges[at] ?? 0
      const path = join(folder, String(at))
      const block = [Buffer.from('XYZ'), bytes.subarray(start, end), Buffer.from('after')]
      writeFileSync(path, Buffer.concat(block))
      return { path, offset: 3, length: end - start }
    })
    return { kind: 'extents', extents, sizeBytes: bytes.length }
  }
}

type Changes = Partial<Delivery> & { readonly to?: readonly string[] }

export function mail({ to = ['to@there.example'], ...changes }: Changes = {}): Delivery {
  return {
    id: '0000000000000000000000000a' as MessageId,
    sender: 'from@here.example',
    recipients: to.map((address) => ({ address, notify: null, orcpt: null })),
    eightBit: false,
    smtpUtf8: false,
    ret: null,
    envid: null,
    prepend: PREPEND,
    body: memory(TEXT),
    beforeDot: async () => {},
    ...changes,
  }
}

export function memory(text: string | Buffer): Body {
  return { kind: 'memory', bytes: Buffer.from(text as string) }
}

/** More than goes out in one write. */
export function largeText(): string {
  return `${'z'.repeat(76)}\r\n`.repeat(10_000)
}

export function unstuffed(wire: Buffer | undefined): string {
  return (wire?.toString('latin1') ?? 'nothing came').replace(/(^|\r\n)\./g, '$1')
}

/** Kind and what an operator reads: the reply without its text, or the cause. */
export function brief(outcome: Outcome | undefined): string {
  if (outcome === undefined) return 'none'
  if (outcome.kind === 'later') return `later${outcome.dotSent ? ' in doubt' : ''} ${outcome.cause}`
  return `${outcome.kind} ${outcome.reply.code} ${outcome.reply.enhanced}`
}
