<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22.0" styleCategories="Symbology">
  <renderer-v2 type="RuleRenderer" symbollevels="0" enableorderby="0" forceraster="0">
    <rules key="rules">
      <rule key="all" symbol="0" label="Not observed (one date or both)"/>
    </rules>
    <symbols>
      <symbol name="0" type="fill" alpha="1" clip_to_extent="1" force_rhr="0">
        <layer class="SimpleFill" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option name="color" type="QString" value="128,128,128,90"/>
            <Option name="style" type="QString" value="solid"/>
            <Option name="outline_style" type="QString" value="no"/>
          </Option>
        </layer>
        <layer class="LinePatternFill" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option name="angle" type="QString" value="45"/>
            <Option name="distance" type="QString" value="2.4"/>
            <Option name="distance_unit" type="QString" value="MM"/>
            <Option name="offset" type="QString" value="0"/>
            <Option name="offset_unit" type="QString" value="MM"/>
          </Option>
            <symbol name="@0@0" type="line" alpha="1" clip_to_extent="1" force_rhr="0">
              <layer class="SimpleLine" enabled="1" locked="0" pass="0">
                <Option type="Map">
                  <Option name="line_color" type="QString" value="40,40,46,255"/>
                  <Option name="line_width" type="QString" value="0.15"/>
                  <Option name="line_width_unit" type="QString" value="MM"/>
                  <Option name="line_style" type="QString" value="solid"/>
                  <Option name="capstyle" type="QString" value="round"/>
                  <Option name="joinstyle" type="QString" value="round"/>
                </Option>
              </layer>
            </symbol>
        </layer>
        <layer class="LinePatternFill" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option name="angle" type="QString" value="45"/>
            <Option name="distance" type="QString" value="2.4"/>
            <Option name="distance_unit" type="QString" value="MM"/>
            <Option name="offset" type="QString" value="0.2"/>
            <Option name="offset_unit" type="QString" value="MM"/>
          </Option>
            <symbol name="@0@1" type="line" alpha="1" clip_to_extent="1" force_rhr="0">
              <layer class="SimpleLine" enabled="1" locked="0" pass="0">
                <Option type="Map">
                  <Option name="line_color" type="QString" value="255,255,255,255"/>
                  <Option name="line_width" type="QString" value="0.15"/>
                  <Option name="line_width_unit" type="QString" value="MM"/>
                  <Option name="line_style" type="QString" value="solid"/>
                  <Option name="capstyle" type="QString" value="round"/>
                  <Option name="joinstyle" type="QString" value="round"/>
                </Option>
              </layer>
            </symbol>
        </layer>
      </symbol>
    </symbols>
  </renderer-v2>
  <layerGeometryType>2</layerGeometryType>
</qgis>
