/** `ban list|lift`: networks that are refused because they guess recipients. */
import { Api, type List, pathOf } from './api.ts'
import { jsonText, table } from './print.ts'
import { dataDirOf, type Run } from './world.ts'

/** As GET /api/v1/bans gives it. */
type BanRow = { readonly network: string; readonly until: string }

export const listBans: Run = async (call, world) => {
  const { rows } = await new Api(dataDirOf(call)).call<List<BanRow>>('GET', '/bans')
  if (call.json) await world.out(jsonText(rows))
  else if (rows.length === 0) await world.out('No network is refused.\n')
  else {
    const lines = rows.map(({ network, until }) => [network, until])
    await world.out(table(world, ['NETWORK', 'UNTIL'], lines))
  }
  return 0
}

export const liftBan: Run = async (call, world) => {
  const [network = ''] = call.args
  await new Api(dataDirOf(call)).call('DELETE', pathOf(['bans', network]))
  const done = { network, lifted: true }
  await world.out(call.json ? jsonText(done) : `${network} is let in again.\n`)
  return 0
}
