<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22.0" styleCategories="Symbology|Fields|Forms">
  <renderer-v2 type="categorizedSymbol" attr="if(&quot;reference&quot; is null, 'open', 'labelled')" symbollevels="0" enableorderby="0" forceraster="0">
    <categories>
      <category symbol="0" value="open" label="To be labelled" render="true"/>
      <category symbol="1" value="labelled" label="Labelled" render="true"/>
    </categories>
    <symbols>
      <symbol name="0" type="fill" alpha="1" clip_to_extent="1" force_rhr="0">
        <layer class="SimpleLine" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option name="line_color" type="QString" value="230,159,0,255"/>
            <Option name="line_width" type="QString" value="0.5"/>
            <Option name="line_width_unit" type="QString" value="MM"/>
          </Option>
          <prop k="line_color" v="230,159,0,255"/>
          <prop k="line_width" v="0.5"/>
          <prop k="line_width_unit" v="MM"/>
        </layer>
        <layer class="CentroidFill" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option name="point_on_surface" type="QString" value="0"/>
          </Option>
          <prop k="point_on_surface" v="0"/>
          <symbol name="@0@1" type="marker" alpha="1" clip_to_extent="1" force_rhr="0">
            <layer class="SimpleMarker" enabled="1" locked="0" pass="0">
              <Option type="Map">
                <Option name="name" type="QString" value="circle"/>
                <Option name="color" type="QString" value="0,0,0,0"/>
                <Option name="outline_color" type="QString" value="230,159,0,255"/>
                <Option name="outline_style" type="QString" value="solid"/>
                <Option name="outline_width" type="QString" value="0.6"/>
                <Option name="outline_width_unit" type="QString" value="MM"/>
                <Option name="size" type="QString" value="6"/>
                <Option name="size_unit" type="QString" value="MM"/>
              </Option>
              <prop k="name" v="circle"/>
              <prop k="color" v="0,0,0,0"/>
              <prop k="outline_color" v="230,159,0,255"/>
              <prop k="outline_style" v="solid"/>
              <prop k="outline_width" v="0.6"/>
              <prop k="outline_width_unit" v="MM"/>
              <prop k="size" v="6"/>
              <prop k="size_unit" v="MM"/>
            </layer>
          </symbol>
        </layer>
      </symbol>
      <symbol name="1" type="fill" alpha="1" clip_to_extent="1" force_rhr="0">
        <layer class="SimpleLine" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option name="line_color" type="QString" value="0,114,178,255"/>
            <Option name="line_width" type="QString" value="0.4"/>
            <Option name="line_width_unit" type="QString" value="MM"/>
          </Option>
          <prop k="line_color" v="0,114,178,255"/>
          <prop k="line_width" v="0.4"/>
          <prop k="line_width_unit" v="MM"/>
        </layer>
        <layer class="CentroidFill" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option name="point_on_surface" type="QString" value="0"/>
          </Option>
          <prop k="point_on_surface" v="0"/>
          <symbol name="@1@1" type="marker" alpha="1" clip_to_extent="1" force_rhr="0">
            <layer class="SimpleMarker" enabled="1" locked="0" pass="0">
              <Option type="Map">
                <Option name="name" type="QString" value="circle"/>
                <Option name="color" type="QString" value="0,114,178,255"/>
                <Option name="outline_color" type="QString" value="255,255,255,255"/>
                <Option name="outline_style" type="QString" value="solid"/>
                <Option name="outline_width" type="QString" value="0.2"/>
                <Option name="outline_width_unit" type="QString" value="MM"/>
                <Option name="size" type="QString" value="1.8"/>
                <Option name="size_unit" type="QString" value="MM"/>
              </Option>
              <prop k="name" v="circle"/>
              <prop k="color" v="0,114,178,255"/>
              <prop k="outline_color" v="255,255,255,255"/>
              <prop k="outline_style" v="solid"/>
              <prop k="outline_width" v="0.2"/>
              <prop k="outline_width_unit" v="MM"/>
              <prop k="size" v="1.8"/>
              <prop k="size_unit" v="MM"/>
            </layer>
          </symbol>
        </layer>
      </symbol>
    </symbols>
  </renderer-v2>
  <fieldConfiguration>
    <field name="unit" configurationFlags="None">
      <editWidget type="TextEdit"><config><Option/></config></editWidget>
    </field>
    <field name="reference" configurationFlags="None">
      <editWidget type="ValueMap">
        <config>
          <Option type="Map">
            <Option name="map" type="List">
              <Option type="Map"><Option name="No change" type="QString" value="none"/></Option>
              <Option type="Map"><Option name="Building change" type="QString" value="building"/></Option>
              <Option type="Map"><Option name="Road change" type="QString" value="road"/></Option>
              <Option type="Map"><Option name="Change of unknown kind" type="QString" value="change"/></Option>
              <Option type="Map"><Option name="Cannot tell" type="QString" value="unclear"/></Option>
            </Option>
          </Option>
        </config>
      </editWidget>
    </field>
    <field name="note" configurationFlags="None">
      <editWidget type="TextEdit"><config><Option/></config></editWidget>
    </field>
    <field name="stratum" configurationFlags="None">
      <editWidget type="Hidden"><config><Option/></config></editWidget>
    </field>
    <field name="map_class" configurationFlags="None">
      <editWidget type="Hidden"><config><Option/></config></editWidget>
    </field>
    <field name="row" configurationFlags="None">
      <editWidget type="Hidden"><config><Option/></config></editWidget>
    </field>
    <field name="col" configurationFlags="None">
      <editWidget type="Hidden"><config><Option/></config></editWidget>
    </field>
  </fieldConfiguration>
  <editable>
    <field name="unit" editable="0"/>
    <field name="reference" editable="1"/>
    <field name="note" editable="1"/>
  </editable>
  <layerGeometryType>2</layerGeometryType>
</qgis>
