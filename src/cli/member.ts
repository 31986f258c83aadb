/** `leave`, `remove`, `drain`, `undrain`: the nodes of the cluster, this one or another. */
import { Api, pathOf } from './api.ts'
import { jsonText, plain } from './print.ts'
import { dataDirOf, hasFlag, type Run } from './world.ts'

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
  await new Api(dataDirOf(call)).call('POST', pathOf(['nodes', node ?? 'self', 'drain']))
  const done = `${node ?? 'This node'} takes no new mail, and hands its queue to the others.\n`
  await world.out(call.json ? jsonText({ node: node ?? 'self', drain: true }) : done)
  return 0
}

export const undrain: Run = async (call, world) => {
  const [node] = call.args
  await new Api(dataDirOf(call)).call('POST', pathOf(['nodes', node ?? 'self', 'undrain']))
  const done = `${node ?? 'This node'} takes mail again.\n`
  await world.out(call.json ? jsonText({ node: node ?? 'self', drain: false }) : done)
  return 0
}
