/**
 * Logs and counters. Every event of the gateway stands once in EVENTS, so that its name, level
 * and labels cannot drift. One call feeds the JSON log line and the counter.
 */
import type { Clock } from './clock.ts'
import { isoTime } from './clock.ts'

export type Level = 'debug' | 'info' | 'warn' | 'error'
export type Fields = Readonly<Record<string, string | number | boolean | null | undefined>>

const RANK: Readonly<Record<Level, number>> = { debug: 0, info: 1, warn: 2, error: 3 }

type EventSpec = {
  readonly level: Level
  /** Counter without the prefix `postern_`; every emit adds to it. */
  readonly counter?: string
  readonly help?: string
  /** The field by whose number the counter grows; without it by one. */
  readonly adds?: string
  /** Fields that become labels: few values only, never an address, a domain or an id. */
  readonly labels?: readonly string[]
}

/** name: area.past-participle. Lines about a mail have `message`; never a subject or a body. */
const EVENTS = {
  'node.started': { level: 'info' },
  'node.stopped': { level: 'info' },
  'node.failed': { level: 'error' },
  'node.moved': { level: 'warn' },
  'node.waiting': { level: 'warn' },
  'smtp.connected': { level: 'debug', counter: 'smtp_connections_total', help: 'SMTP connections' },
  'smtp.refused': {
    level: 'info',
    counter: 'smtp_refused_total',
    help: 'SMTP connections and commands refused',
    labels: ['why'],
  },
  'client.banned': {
    level: 'warn',
    counter: 'client_bans_total',
    help: 'Client networks refused for a while for recipients that nobody has',
  },
  'client.unbanned': { level: 'info' },
  'recipient.unasked': {
    level: 'warn',
    counter: 'recipients_unasked_total',
    help: 'Times that a next hop or a directory could not say whether a recipient is there',
  },
  'recipient.unknowable': { level: 'info' },
  'smtp.failed': {
    level: 'warn',
    counter: 'smtp_failed_total',
    help: 'SMTP sessions ended by an error of ours',
  },
  'smtp.secured': {
    level: 'debug',
    counter: 'smtp_tls_total',
    help: 'STARTTLS handshakes',
    labels: ['result'],
  },
  'mail.decided': {
    level: 'info',
    counter: 'mail_total',
    help: 'Messages by verdict',
    labels: ['verdict'],
  },
  'mail.held': { level: 'debug', counter: 'mail_held_total', help: 'Messages put into quarantine' },
  'mail.released': {
    level: 'info',
    counter: 'mail_released_total',
    help: 'Held recipients released',
  },
  'mail.deleted': {
    level: 'info',
    counter: 'mail_deleted_total',
    help: 'Held recipients deleted or expired',
    labels: ['why'],
  },
  'verdict.flipped': {
    level: 'warn',
    counter: 'verdict_flips_total',
    help: 'Recipients who had got a link or a file of a mail that was learnt as spam later',
    adds: 'recipients',
  },
  'mail.unsigned': {
    level: 'warn',
    counter: 'mail_unsigned_total',
    help: 'Signatures that were not made: this node has no such key, or none that works',
  },
  'signing.lost': {
    level: 'warn',
    counter: 'signing_records_lost_total',
    help: 'Times that the DNS was found not to have the record of a key that signs',
  },
  'signing.found': { level: 'info' },
  'engine.failed': {
    level: 'warn',
    counter: 'engine_failed_total',
    help: 'Questions to scanners beside us that were not answered',
    labels: ['engine'],
  },
  'inspect.silent': {
    level: 'warn',
    counter: 'inspect_unknown_total',
    help: 'Inspectors that gave no answer',
    labels: ['inspector'],
  },
  'inspect.ended': {
    level: 'warn',
    counter: 'inspect_ended_total',
    help: 'Mails over which an inspector process ended',
  },
  'inspect.replaced': {
    level: 'warn',
    counter: 'inspect_replaced_total',
    help: 'Inspector processes ended and replaced',
    labels: ['why'],
  },
  'names.failed': {
    level: 'debug',
    counter: 'dns_failed_total',
    help: 'Questions that no name server could answer',
  },
  'names.silent': {
    level: 'error',
    counter: 'dns_silent_total',
    help: 'Times that no name server answered anything any more',
  },
  'names.answering': { level: 'info' },
  'list.left': {
    level: 'warn',
    counter: 'lists_left_total',
    help: 'Times that a list in the DNS was left out because it cannot be believed',
  },
  'list.believed': { level: 'info' },
  'deliver.unsecured': {
    level: 'info',
    counter: 'deliver_tls_failed_total',
    help: 'Next hops reached in clear text because STARTTLS failed',
  },
  'deliver.failed': {
    level: 'error',
    counter: 'deliver_failed_total',
    help: 'Attempts ended by an error of ours',
  },
  'queue.tried': {
    level: 'info',
    counter: 'deliveries_total',
    help: 'Attempts by outcome',
    labels: ['outcome'],
  },
  'queue.doubted': {
    level: 'warn',
    counter: 'possible_duplicates_total',
    help: 'Deliveries that may have arrived before',
  },
  'queue.bounced': {
    level: 'info',
    counter: 'bounces_total',
    help: 'Delivery status notifications sent',
    labels: ['kind'],
  },
  'copy.kept': {
    level: 'debug',
    counter: 'copies_total',
    help: 'Copies that another node acknowledged',
  },
  'copy.missed': {
    level: 'warn',
    counter: 'unreplicated_accepts_total',
    help: 'Messages answered 250 with one copy only',
  },
  'copy.healed': {
    level: 'info',
    counter: 'copies_healed_total',
    help: 'Copies made anew after a holder was lost',
  },
  'copy.refused': {
    level: 'info',
    counter: 'copies_refused_total',
    help: 'Copies of others that this node did not take',
    labels: ['why'],
  },
  'copy.garbled': {
    level: 'error',
    counter: 'copies_garbled_total',
    help: 'Links closed for what was said of copies of mail and could not be read',
    labels: ['why'],
  },
  'queue.adopted': {
    level: 'warn',
    counter: 'adopted_total',
    help: 'Messages taken over from another node',
    labels: ['why'],
  },
  'queue.resolved': {
    level: 'info',
    counter: 'possible_duplicates_resolved_total',
    help: 'Possible duplicates of which the former owner told what became of them',
    labels: ['how'],
  },
  'queue.yielded': {
    level: 'warn',
    counter: 'yielded_total',
    help: 'Messages given up to the node that had taken them over',
  },
  'queue.transferred': {
    level: 'info',
    counter: 'transferred_total',
    help: 'Messages handed to another node',
  },
  'queue.barred': {
    level: 'info',
    counter: 'barred_total',
    adds: 'messages',
    help: 'Messages of which no holder in reach could say whether another node has them',
    labels: ['why'],
  },
  'node.rolledBack': {
    level: 'error',
    counter: 'rolled_back_total',
    help: 'Starts at which others knew more of the acts of this node than its own disk',
  },
  'node.confirmedDead': {
    level: 'error',
    counter: 'nodes_confirmed_dead_total',
    help: 'Peers found to be dead for sure',
    labels: ['why'],
  },
  'held.healed': {
    level: 'info',
    counter: 'held_healed_total',
    help: 'Held messages whose content was copied to another node',
  },
  'held.taken': {
    level: 'warn',
    counter: 'held_taken_total',
    help: 'Held messages taken over from another node',
    labels: ['why'],
  },
  'held.yielded': {
    level: 'warn',
    counter: 'held_yielded_total',
    help: 'Recipients that the next owner of a mail did not know to be decided, told to it by this node',
    adds: 'recipients',
  },
  'held.doubted': {
    level: 'warn',
    counter: 'possible_duplicates_total',
    help: 'Deliveries that may have arrived before',
    adds: 'recipients',
  },
  'spool.opened': { level: 'info' },
  'spool.corrupted': {
    level: 'error',
    counter: 'spool_corrupt_total',
    help: 'Spool records that failed their checksum',
  },
  'spool.failed': {
    level: 'error',
    counter: 'spool_failed_total',
    help: 'Writes or syncs of the spool that failed',
  },
  'spool.refused': {
    level: 'warn',
    counter: 'spool_refused_total',
    help: 'Messages refused for want of space',
  },
  'store.failed': {
    level: 'error',
    counter: 'store_failed_total',
    help: 'Database operations that failed',
  },
  'trace.replaced': { level: 'error' },
  'state.replaced': { level: 'error' },
  'trace.dropped': {
    level: 'warn',
    counter: 'trace_dropped_total',
    help: 'Messages whose history could not be written',
  },
  'config.ignored': {
    level: 'error',
    counter: 'config_ignored_total',
    help: 'Stored settings that no longer hold and were not used',
  },
  'config.refused': {
    level: 'error',
    counter: 'config_refused_total',
    help: 'Merged settings that do not hold and were not put in force',
  },
  'config.mended': { level: 'info' },
  'config.disputed': {
    level: 'warn',
    counter: 'config_conflicts_total',
    help: 'Values set on two nodes at the same time',
  },
  'config.changed': { level: 'info', counter: 'config_changes_total', help: 'Changes of settings' },
  'web.failed': {
    level: 'error',
    counter: 'web_failed_total',
    help: 'Requests that ended with an error of ours',
  },
  'member.changed': {
    level: 'info',
    counter: 'member_changes_total',
    help: 'Members that came, left or were removed',
    labels: ['standing'],
  },
  'member.refused': {
    level: 'error',
    counter: 'members_refused_total',
    help: 'Member rows that no member has signed',
  },
  'join.issued': { level: 'info' },
  'join.revoked': { level: 'info' },
  'join.accepted': { level: 'info', counter: 'joins_total', help: 'Nodes that were let in here' },
  'join.refused': {
    level: 'warn',
    counter: 'joins_refused_total',
    help: 'Nodes that were not let in here',
    labels: ['code'],
  },
  'sync.completed': { level: 'info' },
  'sync.taken': {
    level: 'debug',
    counter: 'sync_rows_total',
    help: 'Rows of peers that changed something here',
    adds: 'rows',
    labels: ['feed', 'as'],
  },
  'sync.repaired': {
    level: 'error',
    counter: 'sync_repairs_total',
    help: 'Rows that a digest had to repair: 0, or a fault of ours',
    adds: 'rows',
  },
  'sync.refused': {
    level: 'warn',
    counter: 'sync_refused_total',
    help: 'Messages of peers that could not be read',
    labels: ['why'],
  },
  'sync.stalled': {
    level: 'error',
    counter: 'sync_stalled_total',
    help: 'Rows that could not be taken or given because of the store',
  },
  'sync.flooded': {
    level: 'warn',
    counter: 'sync_flooded_total',
    help: 'Peers that pushed more rows than they may',
  },
  'clock.jumped': { level: 'warn', counter: 'clock_jumps_total', help: 'Jumps of the wall clock' },
  'clock.skewed': {
    level: 'warn',
    counter: 'clock_skewed_total',
    help: 'Peers whose clock differs by 2 s or more',
  },
  'clock.mistrusted': { level: 'error' },
  'clock.trusted': { level: 'info' },
  'call.failed': {
    level: 'warn',
    counter: 'calls_failed_total',
    help: 'Questions of peers that ended with an error of ours',
  },
  'member.judged': {
    level: 'info',
    counter: 'member_lives_total',
    help: 'Changes of what this node thinks of a peer',
    labels: ['life'],
  },
  'member.muted': {
    level: 'warn',
    counter: 'members_muted_total',
    help: 'Peers that are heard by their link and not by datagrams: UDP is blocked on the way',
  },
  'member.doubled': {
    level: 'error',
    counter: 'members_doubled_total',
    help: 'Two machines that run as one node: a copied disk or a cloned machine',
  },
  'member.stalled': {
    level: 'info',
    counter: 'stalls_total',
    help: 'Times that this process stood still for more than 250 ms',
  },
  'packet.dropped': {
    level: 'debug',
    counter: 'packets_dropped_total',
    help: 'Datagrams that were not taken and not answered',
    labels: ['why'],
  },
  'operator.entered': {
    level: 'info',
    counter: 'logins_total',
    help: 'Sign-ins',
    labels: ['result'],
  },
  'gate.refused': {
    level: 'debug',
    counter: 'gate_refused_total',
    help: 'Connections from peers and strangers that ended before they were a link',
    labels: ['why'],
  },
  'link.opened': { level: 'info', counter: 'links_opened_total', help: 'Links with peers opened' },
  'link.closed': { level: 'info', counter: 'links_closed_total', help: 'Links with peers closed' },
  'link.troubled': { level: 'warn' },
  'link.failed': {
    level: 'error',
    counter: 'link_failed_total',
    help: 'Links closed by an error of ours',
  },
  'link.garbled': {
    level: 'warn',
    counter: 'link_garbled_total',
    help: 'Links closed for a frame that nobody of us sealed',
  },
  'job.done': {
    level: 'info',
    counter: 'jobs_total',
    help: 'Jobs of the cluster that this node did',
  },
  'job.failed': {
    level: 'warn',
    counter: 'jobs_failed_total',
    help: 'Jobs of the cluster that this node could not do',
  },
  'node.doubled': {
    level: 'error',
    counter: 'node_doubled_total',
    help: 'Two running nodes seen with one identity',
  },
} as const satisfies Record<string, EventSpec>

export type EventName = keyof typeof EVENTS

/** One line of a gauge with labels. */
export type Sample = {
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

type Reading = number | readonly Sample[]
type Gauge = { readonly help: string; readonly read: () => Reading }

/** How often a value was at most each bound, the last one of any size; and their sum. */
type Histogram = {
  readonly help: string
  readonly bounds: readonly number[]
  readonly counts: number[]
  sum: number
}

export class Observer {
  readonly #clock: Clock
  readonly #write: (lines: string) => void
  readonly #least: number
  readonly #counters = new Map<
    string,
    { readonly help: string; readonly values: Map<string, number> }
  >()
  readonly #gauges = new Map<string, Gauge>()
  readonly #histograms = new Map<string, Histogram>()
  #buffer: string[] = []

  /** `write` gets whole lines with their newlines, at most every 20 ms and 256 lines. */
  constructor(clock: Clock, write: (lines: string) => void, least: Level = 'info') {
    this.#clock = clock
    this.#write = write
    this.#least = RANK[least]
    for (const spec of Object.values(EVENTS) as EventSpec[]) {
      if (spec.counter === undefined || this.#counters.has(spec.counter)) continue
      const values = new Map<string, number>()
      if (spec.labels === undefined) values.set('', 0)
      this.#counters.set(spec.counter, { help: spec.help ?? '', values })
    }
  }

  emit(event: EventName, fields: Fields = {}): void {
    const spec: EventSpec = EVENTS[event]
    if (spec.counter !== undefined) {
      const labels =
        spec.labels?.map((label) => `${label}="${fields[label] ?? ''}"`).join(',') ?? ''
      const values = this.#counters.get(spec.counter)?.values
      const by = spec.adds === undefined ? 1 : Number(fields[spec.adds])
      values?.set(labels, (values.get(labels) ?? 0) + by)
    }
    if (RANK[spec.level] < this.#least) return
    // JSON escapes control characters: a hostile address cannot forge a line (faults.md G11).
    this.#buffer.push(
      JSON.stringify({ time: isoTime(this.#clock.wallMs()), level: spec.level, event, ...fields }),
    )
    // What was out of the ordinary is out before the process can end for it.
    if (RANK[spec.level] >= RANK.warn || this.#buffer.length >= 256) this.flush()
    else if (this.#buffer.length === 1) this.#clock.after(20, () => this.flush())
  }

  /** A value that is read when somebody asks: `name` without the prefix `postern_`. */
  gauge(name: string, help: string, read: () => Reading): void {
    this.#gauges.set(name, { help, read })
  }

  /**
   * Values in buckets, up to each of the ascending `bounds` and beyond: call what it gives with
   * each value. `name` without the prefix, with its unit, as `replication_ack_seconds`.
   */
  histogram(name: string, help: string, bounds: readonly number[]): (value: number) => void {
    const histogram: Histogram = { help, bounds, counts: Array(bounds.length + 1).fill(0), sum: 0 }
    this.#histograms.set(name, histogram)
    return (value) => {
      const at = bounds.findIndex((bound) => value <= bound)
      const place = at < 0 ? bounds.length : at
      histogram.counts[place] = (histogram.counts[place] ?? 0) + 1
      histogram.sum += value
    }
  }

  /** The sum of a counter over its labels; `counter` without the prefix. */
  count(counter: string): number {
    let sum = 0
    for (const value of this.#counters.get(counter)?.values.values() ?? []) sum += value
    return sum
  }

  /** Prometheus text format 0.0.4. */
  metrics(): string {
    const lines: string[] = []
    for (const [name, { help, values }] of this.#counters) {
      lines.push(`# HELP postern_${name} ${help}`, `# TYPE postern_${name} counter`)
      for (const [labels, value] of values) {
        lines.push(`postern_${name}${labels === '' ? '' : `{${labels}}`} ${value}`)
      }
    }
    for (const [name, { help, read }] of this.#gauges) {
      lines.push(`# HELP postern_${name} ${help}`, `# TYPE postern_${name} gauge`)
      const value = read()
      if (typeof value === 'number') lines.push(`postern_${name} ${value}`)
      else
        lines.push(...value.map((sample) => `postern_${name}${labelsOf(sample)} ${sample.value}`))
    }
    for (const [name, { help, bounds, counts, sum }] of this.#histograms) {
      lines.push(`# HELP postern_${name} ${help}`, `# TYPE postern_${name} histogram`)
      let count = 0
      for (const [at, of] of counts.entries()) {
        count += of
        lines.push(`postern_${name}_bucket{le="${bounds[at] ?? '+Inf'}"} ${count}`)
      }
      lines.push(`postern_${name}_sum ${sum}`, `postern_${name}_count ${count}`)
    }
    return `${lines.join('\n')}\n`
  }

  flush(): void {
    if (this.#buffer.length === 0) return
    const lines = `${this.#buffer.join('\n')}\n`
    this.#buffer = []
    this.#write(lines)
  }
}

/** A value may hold anything: quotes, backslashes and line ends are escaped. */
function labelsOf({ labels }: Sample): string {
  const pairs = Object.entries(labels).map(([name, value]) => {
    const text = value.replace(/[\\"]/g, '\\$&').replaceAll('\n', '\\n')
    return `${name}="${text}"`
  })
  return `{${pairs.join(',')}}`
}
