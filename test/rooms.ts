/** A data directory with open stores for one test, on a clock that the test moves. */
import { afterEach } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { RefusalError } from '../src/base/errors.ts'
import { type MessageId, MessageIds, newNodeId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import { LiveConfig } from '../src/config/live.ts'
import type { NewTraceRow } from '../src/message/rows.ts'
import { Audit } from '../src/store/audit.ts'
import { Bodies, type HeldMail } from '../src/store/bodies.ts'
import { Changes } from '../src/store/changes.ts'
import { Conflicts } from '../src/store/conflicts.ts'
import { DetectionStore } from '../src/store/detection.ts'
import { KeyRecords } from '../src/store/key-records.ts'
import { Learned } from '../src/store/learned.ts'
import { Lists } from '../src/store/lists.ts'
import { openDatabases } from '../src/store/open.ts'
import { Operators } from '../src/store/operators.ts'
import { Quarantine } from '../src/store/quarantine.ts'
import { Replica } from '../src/store/replica.ts'
import { ApiTokens } from '../src/store/tokens.ts'
import { Trace } from '../src/store/trace.ts'
import { ManualClock } from './clock.ts'

let starts = 0

export class Room {
  readonly directory: string
  readonly clock: ManualClock
  /** Another one at each opening: a process never writes under the name of one before. */
  readonly random: SeededRandom
  readonly lines: string[] = []
  readonly observer: Observer
  readonly node = { id: newNodeId(new SeededRandom(1)), name: 'mx1' }
  readonly ids: MessageIds
  readonly live = new LiveConfig()
  readonly databases
  readonly rows: Replica
  readonly audit: Audit
  readonly changes: Changes
  readonly conflicts: Conflicts
  readonly lists: Lists
  readonly detection: DetectionStore
  readonly keyRecords: KeyRecords
  readonly tokens: ApiTokens
  /** Why nothing may be set; a test sets it. */
  readOnly: string | null = null
  hasJoined = false
  readonly trace: Trace
  readonly quarantine: Quarantine
  readonly bodies: Bodies
  readonly learned: Learned
  readonly operators: Operators

  /** `directory`: one that is there already, of a room that was closed. */
  constructor(
    directory = mkdtempSync(join(tmpdir(), 'postern-')),
    clock = new ManualClock(),
    seed = 7 + starts++,
  ) {
    this.random = new SeededRandom(seed)
    this.directory = directory
    this.clock = clock
    this.observer = new Observer(clock, (lines) => this.lines.push(...lines.split('\n')))
    this.ids = new MessageIds(this.node.id, 1, clock)
    this.databases = openDatabases(directory, this)
    const { state } = this.databases
    const deps = {
      clock,
      random: this.random,
      observer: this.observer,
      node: this.node.id,
      nodeNameOf: () => this.node.name,
      readOnlyBecause: () => this.readOnly,
      maySetUp: () => !this.hasJoined,
    }
    this.rows = new Replica(state, deps)
    this.audit = new Audit(state, this.rows, deps)
    this.changes = new Changes(state, this.rows, this.live, deps)
    this.conflicts = new Conflicts(this.rows, this.changes, deps)
    this.lists = new Lists(this.rows, this.changes)
    this.detection = new DetectionStore(this.rows, this.changes, this.live)
    this.keyRecords = new KeyRecords(this.rows, deps)
    this.tokens = new ApiTokens(this.rows, this.changes, this.audit, deps)
    this.operators = new Operators(this.rows, this.changes, directory, {
      ...deps,
      audit: this.audit,
    })
    this.quarantine = new Quarantine(state, this.rows, this)
    this.learned = new Learned(state, this.rows, { ...deps, directory: join(directory, 'learned') })
    this.rows.start()
    this.learned.start()
    for (const part of [this.changes, this.conflicts, this.tokens, this.operators]) part.load()
    this.trace = new Trace(this.databases.trace, {
      ...this,
      keepMs: () => this.live.current.settings['trace.keep'] * 86_400_000,
    })
    this.bodies = new Bodies(directory, this)
  }

  /** Closes as a stop does and opens the same directory again. */
  reopened(): Room {
    this.close()
    return new Room(this.directory, this.clock)
  }

  close(): void {
    this.trace.close()
    this.learned.close()
    this.quarantine.close()
    this.databases.state.close()
    this.databases.trace.close()
    this.observer.flush()
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true })
  }

  row(part: Partial<NewTraceRow> = {}): NewTraceRow {
    return {
      id: this.ids.next(),
      atMs: this.clock.wallMs(),
      clientIp: '192.0.2.1',
      sender: 'a@sender.example',
      recipient: 'b@example.com',
      subject: 'A subject',
      sizeBytes: 4_000,
      score: 0,
      rules: [],
      accept: 'accepted',
      acceptReply: '250 2.0.0 ok',
      delivery: 'queued',
      deliveryReply: null,
      deliveryMs: null,
      ...part,
    }
  }

  held(part: Partial<HeldMail['row']> = {}, places: readonly number[] = [0, 1]): HeldMail {
    const id: MessageId = part.id ?? this.ids.next()
    const addresses = ['b@example.com', 'c@example.com', 'd@example.com']
    return {
      row: {
        id,
        sender: 'a@sender.example',
        recipients: places.map((place) => addresses[place] ?? ''),
        subject: 'Held subject',
        from: 'Someone <a@sender.example>',
        clientIp: '192.0.2.1',
        sizeBytes: 4_000,
        score: 10,
        rules: ['GTUBE'],
        findings: [{ rule: 'GTUBE', score: 10, evidence: 'The test text stands in it.' }],
        unknowns: [],
        heldMs: this.clock.wallMs(),
        expiresMs: this.clock.wallMs() + 30 * 86_400_000,
        ...part,
      },
      envelope: {
        id,
        receivedMs: this.clock.wallMs(),
        clientIp: '192.0.2.1',
        greeting: 'sender.example',
        protocol: 'ESMTP',
        tls: null,
        outbound: false,
        sender: 'a@sender.example',
        eightBit: false,
        smtpUtf8: false,
        ret: null,
        envid: null,
        recipients: addresses.map((address) => ({ address, notify: null, orcpt: null })),
      },
      places,
      prepend: 'Received: from sender.example\r\n',
    }
  }
}

/** Rooms of one test file: closed and removed after each test. */
export function rooms() {
  const opened: Room[] = []
  afterEach(() => {
    for (const one of opened.splice(0)) {
      one.close()
      one.remove()
    }
  })
  const room = (directory?: string, clock?: ManualClock): Room => {
    const fresh = new Room(directory, clock)
    opened.push(fresh)
    return fresh
  }
  return {
    room,
    /** Closes one whose directory is used on. */
    ended: (one: Room): void => {
      one.close()
      opened.splice(opened.indexOf(one), 1)
    },
    /** Nodes on one clock that do not hear each other yet. */
    apart: (): readonly [Room, Room] => {
      const a = room()
      return [a, room(undefined, a.clock)]
    },
    reopened: (before: Room): Room => {
      const after = before.reopened()
      opened.splice(opened.indexOf(before), 1, after)
      return after
    },
  }
}

export function refusal(act: () => unknown): RefusalError {
  try {
    act()
  } catch (error) {
    if (error instanceof RefusalError) return error
    throw error
  }
  throw new Error('nothing was refused')
}

/** As `refusal`, of what may be a promise. */
export async function refused(act: () => unknown): Promise<RefusalError> {
  try {
    await act()
  } catch (error) {
    if (error instanceof RefusalError) return error
    throw error
  }
  throw new Error('nothing was refused')
}

export async function failure(act: () => Promise<unknown>): Promise<unknown> {
  try {
    await act()
  } catch (error) {
    return error
  }
  throw new Error('nothing failed')
}
