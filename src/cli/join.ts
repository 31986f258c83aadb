/** `invite` and `join`: how a node becomes one of the cluster. */
import { readFileSync } from 'node:fs'
import { Api, type List, pathOf } from './api.ts'
import { ago, jsonText, span, table } from './print.ts'
import type { StatusAnswer } from './status.ts'
import { dataDirOf, hasFlag, optionOf, type Run, UsageError, type World } from './world.ts'

/** As POST /api/v1/invitations gives it. */
type Invited = {
  readonly token: string
  readonly command: string
  readonly expiresAt: string
}

/** As GET /api/v1/invitations gives it. */
type TokenRow = {
  readonly id: string
  readonly state: string
  readonly issuer: string
  readonly issuedAt: string
  readonly by: string
  readonly expiresAt: string
  readonly usedBy: string | null
}

/** `invite` makes a token; with --list or --revoke it is about those that there are. */
export const invite: Run = async (call, world) => {
  const api = new Api(dataDirOf(call))
  const revoked = optionOf(call, '--revoke')
  if (revoked !== undefined) {
    await api.call('DELETE', pathOf(['invitations', revoked]))
    const done = { id: revoked, revoked: true }
    await world.out(call.json ? jsonText(done) : `The token ${revoked} lets nobody in any more.\n`)
    return 0
  }
  if (hasFlag(call, '--list')) {
    const { rows } = await api.call<List<TokenRow>>('GET', '/invitations')
    if (call.json) await world.out(jsonText(rows))
    else if (rows.length === 0) await world.out('No tokens.\n')
    else {
      const { nodes } = await api.call<StatusAnswer>('GET', '/status')
      const names = new Map(nodes.map(({ id, name: called }) => [id, called]))
      await world.out(tokenTable(world, rows, names))
    }
    return 0
  }
  const ttl = optionOf(call, '--ttl')
  const uses = optionOf(call, '--uses')
  const name = optionOf(call, '--name')
  const replaces = optionOf(call, '--replace')
  const made = await api.call<Invited>('POST', '/invitations', {
    ...(ttl === undefined ? {} : { minutes: minutesOf(ttl) }),
    ...(uses === undefined ? {} : { uses: countOf('uses', uses) }),
    ...(name === undefined ? {} : { name }),
    ...(replaces === undefined ? {} : { replaces }),
  })
  await world.out(call.json ? jsonText(made) : inviteText(world, made, uses ?? '1', replaces))
  return 0
}

function inviteText(
  world: World,
  { token, command, expiresAt }: Invited,
  uses: string,
  replaces: string | undefined,
): string {
  const minutes = Math.round((Date.parse(expiresAt) - world.clock.wallMs()) / 60_000)
  const often = uses === '1' ? 'once' : `${uses} times`
  return [
    'On the new machine:',
    '',
    `  ${command}`,
    '',
    'Or on one that has postern:',
    '',
    `  postern join ${token}`,
    '',
    `It lets a node in ${often}, for ${span(minutes * 60_000)}, as long as this node runs.`,
    ...(replaces === undefined
      ? []
      : [`When it is in, ${replaces} is removed and its mail taken over.`]),
    '',
  ].join('\n')
}

function tokenTable(
  world: World,
  rows: readonly TokenRow[],
  names: ReadonlyMap<string, string>,
): string {
  const lines = rows.map((row) => [
    row.id,
    row.state,
    names.get(row.issuer) ?? row.issuer,
    row.by,
    `${ago(world, row.issuedAt)} ago`,
    row.usedBy ?? '-',
  ])
  return table(world, ['TOKEN', 'STATE', 'MADE ON', 'BY', 'MADE', 'USED BY'], lines)
}

/** The running node joins; the cluster of one that it was is no more. */
export const joinNode: Run = async (call, world) => {
  const token = await tokenOf(call.args[0] ?? '', world)
  const discard = hasFlag(call, '--discard')
  await new Api(dataDirOf(call)).call('POST', '/cluster/join', {
    token,
    ...(discard ? { discard } : {}),
  })
  const done = 'This node has joined; "postern status" shows the cluster.\n'
  await world.out(call.json ? jsonText({ joined: true }) : done)
  return 0
}

/** The token that `text` means: itself, the content of `@FILE`, or standard input for `-`. */
export async function tokenOf(text: string, world: World): Promise<string> {
  if (text === '-') return firstWord(await world.input())
  if (!text.startsWith('@')) return text.trim()
  try {
    return firstWord(readFileSync(text.slice(1), 'utf8'))
  } catch {
    throw new UsageError(
      'join',
      `The file ${text.slice(1)} with the join token cannot be read.`,
      'Put the token in it, on one line, readable for this user.',
    )
  }
}

function firstWord(text: string): string {
  return text.trim().split(/\s/)[0] ?? ''
}

/** `15m`, `2h`, `1d`; a bare number is minutes. Its bounds are the node's. */
function minutesOf(text: string): number {
  const [, count = '', unit = 'm'] = /^(\d{1,6})([mhd]?)$/.exec(text) ?? []
  if (count === '') {
    throw new UsageError('ttl', `--ttl "${text}" is no time.`, 'Give 15m, 2h or 1d.')
  }
  return Number(count) * (unit === 'd' ? 1_440 : unit === 'h' ? 60 : 1)
}

/** @throws UsageError */
export function countOf(field: string, text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text)
  throw new UsageError(field, `--${field} "${text}" is no number.`, 'Give a whole number.')
}
