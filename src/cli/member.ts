/** `leave`, `remove`, `drain`, `undrain`: the nodes of the cluster, this one or another. */
import { pause } from '../base/clock.ts'
import { Api, pathOf } from './api.ts'
import type { Call } from './parse.ts'
import { jsonText, plain } from './print.ts'
import { dataDirOf, hasFlag, type Run, type World } from './world.ts'

const LOOK_MS = 1_000

/** As GET /api/v1/cluster gives it. */
type Cluster = {
  readonly nodes: readonly {
    readonly id: string
    readonly name: string
    readonly here: boolean
    readonly state: string
    readonly report: { readonly queue: number; readonly held: number } | null
  }[]
}

/** As DELETE /api/v1/nodes/NODE answers. */
type Removed = {
  readonly node: string
  readonly name: string
  readonly taken: number
  readonly held: number
  readonly renew: readonly string[]
}

export const leave: Run = async (call, world) => {
  const abandon = hasFlag(call, '--abandon')
  await new Api(dataDirOf(call)).call('POST', '/cluster/leave', { abandon })
  const done = 'This node has left the cluster. It may be stopped, and its data deleted.\n'
  await world.out(call.json ? jsonText({ left: true }) : done)
  return 0
}

export const removeNode: Run = async (call, world) => {
  const [node = ''] = call.args
  const gone = await new Api(dataDirOf(call)).call<Removed>('DELETE', pathOf(['nodes', node]))
  if (call.json) {
    await world.out(jsonText(gone))
    return 0
  }
  const { name, taken, held, renew } = gone
  const lines = [
    `${name} (${gone.node}) is removed: no node takes its keys any more.`,
    `Mail of its queue that is taken over: ${taken}.`,
    ...(held === 0 ? [] : [`Held mail of it: ${held}; "postern quarantine list" shows it.`]),
    ...(renew.length === 0 ? [] : ['It could read these, so renew them:']),
    ...renew.map((what) => `  ${what}`),
  ]
  await world.out(lines.map((line) => `${plain(line)}\n`).join(''))
  return 0
}

export const drain: Run = async (call, world) => {
  const [node] = call.args
  const api = new Api(dataDirOf(call))
  await api.call('POST', pathOf(['nodes', node ?? 'self', 'drain']))
  if (hasFlag(call, '--wait')) return await untilDrained(api, call, world)
  const done = `${node ?? 'This node'} takes no new mail, and hands its queue to the others.\n`
  await world.out(call.json ? jsonText({ node: node ?? 'self', drain: true }) : done)
  return 0
}

/** Until it is drained, or no longer to be; says what nobody took. Exit code 1 when something stays. */
async function untilDrained(api: Api, call: Call, world: World): Promise<number> {
  const [wanted] = call.args
  for (;;) {
    const { nodes } = await api.call<Cluster>('GET', '/cluster')
    const node = nodes.find(({ id, name, here }) =>
      wanted === undefined ? here : id === wanted || name === wanted,
    )
    if (node !== undefined && ['draining', 'suspect'].includes(node.state)) {
      await pause(world.clock, LOOK_MS)
      continue
    }
    if (node?.state === 'drained') {
      const { queue = 0, held = 0 } = node.report ?? {}
      const { id, name } = node
      const lines = [
        `${name} is drained.`,
        ...(queue === 0 ? [] : [`Mail that stays in its queue, as nobody took it: ${queue}.`]),
        ...(held === 0 ? [] : [`Held mail stays: ${held}. It waits for ${name} to come back.`]),
      ]
      const text = lines.map((line) => `${plain(line)}\n`).join('')
      await world.out(call.json ? jsonText({ node: id, drained: true, queue, held }) : text)
      return queue === 0 ? 0 : 1
    }
    const { name = wanted ?? 'This node', state = 'gone' } = node ?? {}
    world.err(`${plain(name)} is ${plain(state)} before it was drained.\n`)
    return 1
  }
}

export const undrain: Run = async (call, world) => {
  const [node] = call.args
  await new Api(dataDirOf(call)).call('POST', pathOf(['nodes', node ?? 'self', 'undrain']))
  const done = `${node ?? 'This node'} takes mail again.\n`
  await world.out(call.json ? jsonText({ node: node ?? 'self', drain: false }) : done)
  return 0
}
