// Sends one event of every type with @segment/analytics-node, unmodified; only the host differs from its documentation.
import { createRequire } from 'node:module'
import { join } from 'node:path'

const require = createRequire(join(process.env.SDK_MODULES, 'package.json'))
const { Analytics } = require('@segment/analytics-node')

const [url, writeKey, run] = process.argv.slice(2)
const analytics = new Analytics({ writeKey, host: url, flushAt: 3 })
analytics.on('error', (error) => {
  console.error('@segment/analytics-node reports:', error)
  process.exitCode = 1
})
const userId = `${run}-user`
const anonymousId = `${run}-device`
const id = (type) => ({ messageId: `${run}-${type}` })
analytics.track({ userId, event: 'Order Completed', properties: { revenue: 12.5, currency: 'EUR' }, ...id('track') })
analytics.page({ userId, category: 'shop', name: 'Home', properties: { url: 'https://shop.example/' }, ...id('page') })
analytics.screen({ userId, name: 'Start', ...id('screen') })
analytics.track({ anonymousId, event: 'Product Viewed', properties: { sku: '1' }, ...id('anonymous') })
analytics.identify({ userId, anonymousId, traits: { email: `${run}@example.com`, name: 'Ann Ä' }, ...id('identify') })
analytics.group({ userId, groupId: `${run}-company`, traits: { plan: 'pro' }, ...id('group') })
analytics.alias({ userId, previousId: `${run}-earlier`, ...id('alias') })
await analytics.closeAndFlush()
