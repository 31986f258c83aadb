/** What a node keeps for the day when its database is lost (K20); real nodes: test/process/rebuild.test.ts. */
import { Database } from 'bun:sqlite'
import { afterEach, expect, test } from 'bun:test'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { newNodeId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import { clearAwaits, openIdentity, publicKeys } from '../src/cluster/identity.ts'
import { newKeys } from '../src/cluster/keys.ts'
import { beginRebuild, keepPeers, refuseLostState } from '../src/cluster/rebuild.ts'
import { MemberRoster } from '../src/cluster/roster.ts'
import { DamagedError, StoreDatabase } from '../src/store/db.ts'
import { STATE_MIGRATIONS } from '../src/store/migrations/index.ts'
import { Replica } from '../src/store/replica.ts'
import { ManualClock } from './clock.ts'

const clock = new ManualClock()
const made: string[] = []
afterEach(() => {
  for (const directory of made.splice(0)) rmSync(directory, { recursive: true, force: true })
})

/** The directory of a node that founded a cluster and let another one in. */
function founded() {
  const directory = mkdtempSync(join(tmpdir(), 'postern-rebuild-'))
  made.push(directory)
  const random = new SeededRandom(5)
  const observer = new Observer(clock, () => {})
  const node = newNodeId(random)
  const open = () => openIdentity(directory, node, { random, machine: null, adopt: false })
  const { keys, clusterId } = open()
  const sqlite = new Database(':memory:')
  for (const { sql } of STATE_MIGRATIONS) sqlite.run(sql)
  const state = new Replica(new StoreDatabase(sqlite, 'state.db', observer), {
    clock,
    random,
    node,
  })
  const self = { node, keys, instance: state.writer, epoch: 1, version: '1' }
  const roster = new MemberRoster(self, clusterId, state, { clock, observer })
  const facts = { name: 'mx1', peer: [], smtp: '', web: '', version: '1', features: [] }
  roster.announce(facts)
  const guest = newNodeId(random)
  roster.admit({ ...facts, node: guest, name: 'mx2', ...publicKeys(newKeys(random)) }, 'ann')
  return { directory, node, clusterId, state, roster, guest, identity: open }
}

const SELF = { name: 'mx1' }

test('a database that is gone is refused as long as there are peers, and no longer', () => {
  const { directory, roster, state, guest } = founded()
  refuseLostState(directory)
  keepPeers(directory, roster, state)
  expect(() => refuseLostState(directory)).toThrow(DamagedError)
  writeFileSync(join(directory, 'state.db'), 'x')
  refuseLostState(directory)
  rmSync(join(directory, 'state.db'))
  roster.evict(guest, 'ann')
  keepPeers(directory, roster, state)
  expect(existsSync(join(directory, 'peers.json'))).toBe(false)
  refuseLostState(directory)
})

test('a rebuild sets all of the database aside, keeps who is a member, and can be begun again', () => {
  const { directory, node, clusterId, roster, state, identity } = founded()
  keepPeers(directory, roster, state)
  for (const end of ['', '-wal', '-shm']) writeFileSync(join(directory, `state.db${end}`), end)
  const moved = beginRebuild(directory, { node, ...SELF }, clock)
  expect(readdirSync(directory).filter((name) => name.startsWith('state.db')).length).toBe(3)
  for (const end of ['', '-wal', '-shm']) {
    expect(existsSync(join(directory, `state.db${end}`))).toBe(false)
    expect(existsSync(`${moved}${end}`)).toBe(true)
  }
  // A crash before all was moved.
  writeFileSync(join(directory, 'state.db-wal'), 'old')
  expect(beginRebuild(directory, { node, ...SELF }, clock)).toBeNull()
  expect(existsSync(join(directory, 'state.db-wal'))).toBe(false)
  const { joined, awaits } = identity()
  expect(joined?.clusterId).toBe(clusterId)
  expect(joined?.rows.length).toBe(state.list('member').length)
  expect(awaits).toBe(true)
  clearAwaits(directory)
  expect(identity().awaits).toBe(false)
})

test.each(['', '{', 'null', '[]', '{"rows":{},"clusterId":"00"}', '{"rows":[],"clusterId":1}'])(
  'peers that cannot be read (%s) are none: nothing is touched',
  (text) => {
    const { directory, node, identity } = founded()
    writeFileSync(join(directory, 'peers.json'), text)
    writeFileSync(join(directory, 'state.db'), 'x')
    expect(() => beginRebuild(directory, { node, ...SELF }, clock)).toThrow(
      'No other node is known',
    )
    expect(existsSync(join(directory, 'state.db'))).toBe(true)
    expect(identity().awaits).toBe(false)
  },
)
