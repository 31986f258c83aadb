/** `status`: what the node is doing, and whether it is ready. */
import { Api } from './api.ts'
import { ago, bold, facts, jsonText, plain, size, span, table } from './print.ts'
import { dataDirOf, type Run, type World } from './world.ts'

/** As GET /api/v1/status gives it. */
export type StatusAnswer = {
  readonly node: string
  readonly name: string
  readonly version: string
  readonly ready: boolean
  readonly problems: readonly string[]
  readonly webPin: string | null
  readonly startedAt?: string
  readonly smtp: string
  readonly web: string
  readonly queue: { readonly messages: number; readonly oldestAt?: string | null }
  readonly held: number
  readonly disk: { readonly freeBytes: number; readonly totalBytes: number }
  readonly inspectors: {
    readonly processes: number
    readonly ready: number
    readonly missing: readonly string[]
  }
  readonly possibleDuplicates: number
  readonly nodes: readonly {
    readonly id: string
    readonly name: string
    readonly state: string
    readonly lagMs: number
  }[]
  readonly alerts?: readonly AlertRow[]
}

/** As GET /api/v1/alerts gives it. */
export type AlertRow = {
  readonly kind: string
  readonly level: string
  readonly node: string | null
  readonly since: string
  readonly title: string
  readonly meaning: string
  readonly advice: string
  readonly command: string | null
}

/** A node that is not ready has an answer too: exit code 0, and `ready` is false. */
export const showStatus: Run = async (call, world) => {
  const status = await new Api(dataDirOf(call)).call<StatusAnswer>('GET', '/status')
  if (call.json) {
    await world.out(jsonText(status))
    return 0
  }
  const { queue, disk, inspectors } = status
  const free = `${size(disk.freeBytes)} of ${size(disk.totalBytes)} free`
  const missing =
    inspectors.missing.length === 0 ? '' : `, without ${inspectors.missing.join(', ')}`
  await world.out(
    facts([
      ['Node', `${status.name} (${status.node}), version ${status.version}`],
      ['Ready', status.ready ? 'yes' : `no: ${status.problems.join(' ')}`],
      ['Up', status.startedAt === undefined ? null : ago(world, status.startedAt)],
      ['Mail', status.smtp],
      ['Web', status.web],
      ['Web pin', status.webPin],
      ['Queue', `${queue.messages} waiting${oldest(ago(world, queue.oldestAt))}`],
      ['Held', String(status.held)],
      ['Possible duplicates', String(status.possibleDuplicates)],
      ['Inspectors', `${inspectors.ready} of ${inspectors.processes} ready${missing}`],
      ['Disk', free],
    ]),
  )
  if (status.nodes.length > 1) await world.out(`\n${nodeTable(world, status)}`)
  await world.out(`\n${alertLines(world, status.alerts ?? [])}`)
  return 0
}

/** What somebody should look at, the worst first. */
function alertLines(world: World, alerts: readonly AlertRow[]): string {
  if (alerts.length === 0) return 'No alerts.\n'
  const lines = alerts.flatMap(({ level, title, since, meaning, advice, command }) => [
    `${bold(world, level === 'bad' ? 'ALERT' : 'alert')}  ${plain(title)}, for ${ago(world, since)}`,
    `       ${plain(meaning)}`,
    `       ${plain(advice)}${command === null ? '' : ` ${plain(command)}`}`,
  ])
  return `${lines.join('\n')}\n`
}

/** Every member; one that is dead stays until it is removed. */
function nodeTable(world: World, { nodes, node }: StatusAnswer): string {
  const lines = nodes.map(({ id, name, state, lagMs }) => [
    name,
    state,
    id === node ? 'this node' : lagMs >= 1_000 ? span(lagMs) : '-',
    id,
  ])
  return table(world, ['NODE', 'STATE', 'BEHIND', 'ID'], lines)
}

function oldest(age: string): string {
  return age === '-' ? '' : `, the oldest for ${age}`
}
