/** What somebody should look at: told when it is so, since when, worst first, and not when it is not. */
import { describe, expect, test } from 'bun:test'
import { Alerts } from '../src/admin/alerts.ts'
import type { Alarm } from '../src/admin/contract.ts'
import { registerMailGauges } from '../src/admin/gauges.ts'
import type { LostKey } from '../src/admin/signing-alert.ts'
import type { NodeId } from '../src/base/ids.ts'
import type { ListTrouble } from '../src/base/list-names.ts'
import type { NamesTrouble } from '../src/base/nameserver.ts'
import { Observer } from '../src/base/observe.ts'
import type { NodeReport, NodeView } from '../src/cluster/contract.ts'
import { patienceOf } from '../src/cluster/patience.ts'
import type { Ban } from '../src/mail/accept/bans.ts'
import type { EngineHealth } from '../src/mail/inspect/contract.ts'
import { ManualClock } from './clock.ts'

const REPORT: NodeReport = {
  ready: true,
  queue: 0,
  held: 0,
  diskFreeBytes: 50,
  diskTotalBytes: 100,
  takesCopies: true,
  copies: 0,
  alone: 0,
  inDoubt: 0,
  troubles: [],
}

const LOST: LostKey = {
  key: {
    domain: 'example.com',
    selector: 's1',
    algorithm: 'rsa',
    publicKey: 'MIIB',
    state: 'active',
  },
  why: 's1._domainkey.example.com has no TXT record.',
  sinceMs: 0,
  isOnly: true,
}

/** Three nodes, of which all is well; a test changes what it is about. */
class Ward {
  readonly clock = new ManualClock()
  readonly observer = new Observer(this.clock, () => {}, 'error')
  nodes: NodeView[] = ['mx1', 'mx2', 'mx3'].map((name, at) => ({
    id: `${at}`.repeat(16) as NodeId,
    name,
    here: at === 0,
    state: 'alive',
    sinceMs: null,
    lagRows: 0,
    lagMs: 0,
    report: REPORT,
    clockOffsetMs: 0,
    version: '1',
    peer: [],
    smtp: '',
    web: '',
    admittedMs: 0,
  }))
  alarms: readonly Alarm[] = []
  outside: {
    readonly names: NamesTrouble | null
    readonly lists: readonly ListTrouble[]
    readonly bans: readonly Ban[]
    readonly engines: readonly EngineHealth[]
  } = { names: null, lists: [], bans: [], engines: [] }
  parked = 0
  inDoubt = 0
  pending = 0
  problems: readonly string[] = []
  counted = 0
  lostKeys: readonly LostKey[] = []
  readonly alerts = new Alerts({
    clock: this.clock,
    observer: this.observer,
    nodes: () => this.nodes,
    alarms: () => this.alarms,
    parked: () => this.parked,
    problems: () => this.problems,
    pending: () => this.pending,
    patience: patienceOf(1),
    lostKeys: () => this.lostKeys,
    outside: {
      names: () => this.outside.names,
      lists: () => this.outside.lists,
      bans: () => this.outside.bans,
      engines: () => this.outside.engines,
    },
    totals: () => {
      this.counted += 1
      return { messages: 0, oldestMs: null, inDoubt: this.inDoubt }
    },
  })

  turn(
    name: string,
    {
      report,
      ...more
    }: Partial<Omit<NodeView, 'report'>> & { readonly report?: Partial<NodeReport> | null },
  ): void {
    this.nodes = this.nodes.map((node) => {
      if (node.name !== name) return node
      if (report === null) return { ...node, ...more, report: null }
      return { ...node, ...more, report: { ...REPORT, ...report } }
    })
  }

  /** Kind and node of what is told. */
  get told(): readonly string[] {
    return this.alerts.current().map(({ kind, node }) => `${kind} ${node?.name ?? '-'}`)
  }

  /** A minute passes in which the list is looked at now and then. */
  settle(): readonly string[] {
    for (let i = 0; i < 12; i += 1) {
      this.clock.advance(5_000)
      this.alerts.look()
    }
    return this.told
  }
}

describe('an alert', () => {
  test('is not there when all is well, or when a node has left', () => {
    const ward = new Ward()
    expect(ward.settle()).toEqual([])
    ward.turn('mx2', { state: 'left', report: { alone: 9 } })
    ward.turn('mx3', { state: 'evicted', report: null })
    expect(ward.settle()).toEqual([])
  })

  const cases: readonly (readonly [told: string, turn: (ward: Ward) => void])[] = [
    ['dead mx2', (ward) => ward.turn('mx2', { state: 'dead' })],
    ['alone mx2', (ward) => ward.turn('mx2', { report: { alone: 3 } })],
    ['alone mx1', (ward) => ward.turn('mx1', { report: { alone: 3 } })],
    ['inDoubt mx2', (ward) => ward.turn('mx2', { report: { inDoubt: 1 } })],
    [
      'inDoubt mx1',
      (ward) => {
        ward.inDoubt = 1
      },
    ],
    ['disk mx3', (ward) => ward.turn('mx3', { report: { diskFreeBytes: 9 } })],
    ['clock mx2', (ward) => ward.turn('mx2', { clockOffsetMs: -6_000 })],
    ['notReady mx2', (ward) => ward.turn('mx2', { report: { ready: false } })],
    [
      'notReady mx1',
      (ward) => {
        ward.problems = ['No inspector answers.']
      },
    ],
    ['spool mx2', (ward) => ward.turn('mx2', { report: { troubles: ['spool'] } })],
    ['spool mx1', (ward) => ward.observer.emit('spool.corrupted')],
    ['rolledBack mx2', (ward) => ward.turn('mx2', { report: { troubles: ['rolledBack'] } })],
    ['rolledBack mx1', (ward) => ward.observer.emit('node.rolledBack')],
    ['refused mx2', (ward) => ward.turn('mx2', { report: { troubles: ['refused'] } })],
    ['refused mx1', (ward) => ward.observer.emit('copy.refused', { why: 'full' })],
    ['parked mx2', (ward) => ward.turn('mx2', { report: { troubles: ['parked'] } })],
    [
      'parked mx1',
      (ward) => {
        ward.parked = 2
      },
    ],
    ['config mx2', (ward) => ward.turn('mx2', { report: { troubles: ['config'] } })],
    ['other mx2', (ward) => ward.turn('mx2', { report: { troubles: ['of a later build'] } })],
    [
      'duplicate -',
      (ward) => {
        ward.alarms = [{ kind: 'duplicate', message: 'Two.', advice: 'Stop one.' }]
      },
    ],
    [
      'names mx1',
      (ward) => {
        const names = { sinceMs: ward.clock.wallMs(), cause: 'no answer within 5000 ms' }
        ward.outside = { ...ward.outside, names }
      },
    ],
    ['names mx2', (ward) => ward.turn('mx2', { report: { troubles: ['names'] } })],
    [
      'list mx1',
      (ward) => {
        const list = { zone: 'bl.test', sinceMs: ward.clock.wallMs(), cause: 'The list says no.' }
        ward.outside = { ...ward.outside, lists: [list] }
      },
    ],
    ['list mx2', (ward) => ward.turn('mx2', { report: { troubles: ['list'] } })],
    [
      'ban mx1',
      (ward) => {
        ward.outside = { ...ward.outside, bans: [{ network: '192.0.2.1', leftMs: 3_600_000 }] }
      },
    ],
    [
      'engine mx1',
      (ward) => {
        const engine = { name: 'clamd', sinceMs: ward.clock.wallMs(), cause: 'no answer' }
        ward.outside = { ...ward.outside, engines: [engine] }
      },
    ],
    ['engine mx2', (ward) => ward.turn('mx2', { report: { troubles: ['engine'] } })],
    ['inspector mx1', (ward) => ward.observer.emit('inspect.replaced', { why: 'crash' })],
    ['inspector mx2', (ward) => ward.turn('mx2', { report: { troubles: ['inspector'] } })],
    ['ban mx2', (ward) => ward.turn('mx2', { report: { troubles: ['ban'] } })],
    [
      'pending -',
      (ward) => {
        ward.pending = 4
      },
    ],
    [
      'signing -',
      (ward) => {
        ward.lostKeys = [LOST]
      },
    ],
  ]
  test.each(cases)('%s is told, with what it means and what to do', (told, turn) => {
    const ward = new Ward()
    turn(ward)
    expect(ward.settle()).toEqual([told])
    const [alert] = ward.alerts.current()
    expect(alert?.meaning).toMatch(/^([A-Z]|mx\d ).*\.$/)
    expect(alert?.advice).toMatch(/^[A-Z].*[.:]$/)
    // What ends in a colon is followed by a command.
    if (alert?.advice.endsWith(':')) expect(alert.command).not.toBeNull()
  })

  test('of a mail with one copy is told only when it lasts, and never of a node alone', () => {
    const ward = new Ward()
    ward.turn('mx1', { report: { alone: 3 } })
    expect(ward.told).toEqual([])
    ward.clock.advance(9_000)
    expect(ward.told).toEqual([])
    ward.turn('mx1', {})
    expect(ward.told).toEqual([])
    ward.turn('mx1', { report: { alone: 3 } })
    ward.clock.advance(9_000)
    expect(ward.told).toEqual([])
    ward.clock.advance(10_000)
    expect(ward.told).toEqual(['alone mx1'])
    ward.nodes = ward.nodes.slice(0, 1)
    expect(ward.settle()).toEqual([])
  })

  test('of a mail with one copy says who takes copies, or that nobody does', () => {
    const ward = new Ward()
    ward.turn('mx1', { report: { alone: 3 } })
    ward.turn('mx2', { report: { takesCopies: false } })
    ward.settle()
    expect(ward.alerts.current()[0]?.advice).toContain('mx3 takes copies')
    ward.turn('mx3', { state: 'draining' })
    expect(ward.alerts.current()[0]?.advice).toStartWith('No other node takes copies now')
  })

  test('says since when: as the cluster knows, else since it was first seen, and anew after it was gone', () => {
    const ward = new Ward()
    const startMs = ward.clock.wallMs()
    ward.turn('mx2', { state: 'dead', sinceMs: startMs - 600_000 })
    ward.turn('mx3', { report: { diskFreeBytes: 4 } })
    ward.alerts.look()
    ward.clock.advance(60_000)
    const since = () => ward.alerts.current().map(({ kind, sinceMs }) => [kind, sinceMs - startMs])
    expect(since()).toEqual([
      ['dead', -600_000],
      ['disk', 0],
    ])
    ward.turn('mx3', {})
    expect(since()).toEqual([['dead', -600_000]])
    ward.clock.advance(60_000)
    ward.turn('mx3', { report: { diskFreeBytes: 4 } })
    expect(since()[1]).toEqual(['disk', 120_000])
  })

  test('of several keys without a record names each record, and is urgent when one of them is alone', () => {
    const ward = new Ward()
    const lost = ['s1', 's2', 's3', 's4', 's5'].map((selector) => ({
      ...LOST,
      isOnly: false,
      key: { ...LOST.key, selector },
    }))
    ward.lostKeys = lost
    const [alert] = ward.alerts.current()
    expect([alert?.level, alert?.title]).toEqual([
      'warn',
      'The DNS has not the records of 5 keys that sign',
    ])
    expect(alert?.advice).toContain(
      'TXT s3._domainkey.example.com with "v=DKIM1; k=rsa; p=MIIB"; 2 more.',
    )
    ward.lostKeys = [...lost, LOST]
    expect(ward.alerts.current()[0]?.level).toBe('bad')
  })

  test('that is bad stands before one that is not, and the older one first', () => {
    const ward = new Ward()
    ward.turn('mx3', { report: { inDoubt: 1 } })
    ward.alerts.look()
    ward.clock.advance(5_000)
    ward.turn('mx2', { report: { diskFreeBytes: 4 } })
    ward.alerts.look()
    ward.clock.advance(5_000)
    ward.turn('mx1', { report: { troubles: [] } })
    ward.observer.emit('spool.corrupted')
    expect(ward.told).toEqual(['disk mx2', 'spool mx1', 'inDoubt mx3'])
  })

  test('of a drained node comes when nobody waits for it any more', () => {
    const ward = new Ward()
    ward.turn('mx2', { state: 'drained' })
    expect(ward.settle()).toEqual([])
    ward.clock.advance(patienceOf(1).drainedMs)
    expect(ward.told).toEqual(['drained mx2'])
  })

  test('of refused copies ends ten minutes after the last one', () => {
    const ward = new Ward()
    ward.observer.emit('copy.refused', { why: 'full' })
    expect(ward.told).toEqual(['refused mx1'])
    ward.clock.advance(500_000)
    ward.observer.emit('copy.refused', { why: 'full' })
    expect(ward.told).toEqual(['refused mx1'])
    ward.clock.advance(500_000)
    expect(ward.told).toEqual(['refused mx1'])
    ward.clock.advance(100_000)
    expect(ward.told).toEqual([])
  })

  test('of this node is not told twice when its alarm says it already', () => {
    const ward = new Ward()
    ward.alarms = [{ kind: 'clock', message: 'It is wrong.', advice: 'Set it.' }]
    expect(ward.told).toEqual(['clock -'])
    expect(ward.alerts.told().troubles).toEqual(['clock'])
  })
})

test('the queue is counted at most every 2 s, however often somebody looks', () => {
  const ward = new Ward()
  for (let i = 0; i < 100; i += 1) ward.alerts.current()
  for (let i = 0; i < 100; i += 1) ward.alerts.told()
  expect(ward.counted).toBe(1)
  ward.inDoubt = 7
  ward.clock.advance(2_000)
  expect([ward.alerts.told().inDoubt, ward.counted]).toEqual([7, 2])
})

test('monitoring reads copies, doubt, age and the state of each peer by name', () => {
  const ward = new Ward()
  const { clock, observer } = ward
  ward.turn('mx1', { report: { copies: 12, alone: 3, inDoubt: 2 } })
  ward.turn('mx2', { state: 'dead', name: 'm"x\n2' })
  registerMailGauges({
    clock,
    observer,
    nodes: () => ward.nodes,
    totals: () => ({ messages: 1, oldestMs: clock.wallMs() - 90_000, inDoubt: 2 }),
    alerts: () => ward.alerts.current(),
    lostKeys: () => [1, 2],
  })
  const lines = observer.metrics().split('\n')
  for (const line of [
    'postern_ready 1',
    'postern_queue_oldest_seconds 90',
    'postern_queue_indoubt_messages 2',
    'postern_copies_messages 12',
    'postern_copies_taken 1',
    'postern_unreplicated_messages 3',
    'postern_signing_records_missing 2',
    'postern_peer_state{peer="m\\"x\\n2",state="dead"} 1',
    'postern_peer_state{peer="mx3",state="alive"} 1',
    'postern_alerts{level="bad"} 1',
    'postern_alerts{level="warn"} 0',
  ])
    expect(lines).toContain(line)
  // Counters that dashboards are built on (prefix, names).
  for (const name of [
    'copies_total',
    'unreplicated_accepts_total',
    'copies_healed_total',
    'adopted_total',
    'transferred_total',
    'yielded_total',
    'barred_total',
    'possible_duplicates_total',
  ])
    expect(lines.some((line) => line.startsWith(`# TYPE postern_${name} counter`))).toBe(true)
})
